import { and, eq, isNull } from 'drizzle-orm'
import { tokens, users } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { inTransaction } from '../transaction.ts'
import { newTokenText, tokenSha256 } from './token-text.ts'

/** The user that the server's own child process stands for; it can do nothing but claim jobs. */
const LOCAL_RUNNER = 'local-runner'

/** A token for the runners that this server starts itself. Those of its earlier starts end. */
export async function createLocalRunnerToken({ ctx }: { ctx: Pick<Dependencies, 'db' | 'clock'> }): Promise<string> {
  const text = newTokenText()
  const sha256 = await tokenSha256(text)
  await inTransaction(ctx, async (tx) => {
    await tx.insert(users).values({ name: LOCAL_RUNNER }).onConflictDoNothing()
    const [user] = await tx.select().from(users).where(eq(users.name, LOCAL_RUNNER))
    await tx.update(tokens).set({ revokedAt: ctx.clock.now() }).where(and(eq(tokens.userId, user!.id), isNull(tokens.revokedAt)))
    const [token] = await tx.insert(tokens).values({ userId: user!.id, name: LOCAL_RUNNER, sha256, scopes: ['runner'] }).returning()
    const nobody = { principal: { kind: 'anonymous' }, requestId: 'start' } as const
    await recordAudit({ ctx: nobody, tx, entry: { organizationId: null, action: 'token.create', subject: token!.id, after: { name: LOCAL_RUNNER, scopes: ['runner'] } } })
  })
  return text
}
