import { sql } from 'drizzle-orm'
import { tokens, users } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { SCOPES } from '../authorization/principal.ts'
import { newTokenText, tokenSha256 } from '../tokens/token-text.ts'
import { inTransaction } from '../transaction.ts'

/** The user that the first start makes, and its token. */
export const ADMIN = 'admin'
export const FIRST_TOKEN = 'first start'
/** Everything but running jobs. */
export const ADMIN_SCOPES = SCOPES.filter((scope) => scope !== 'runner')

/**
 * On an empty registry, makes the administrator and a token for it, and returns the token's text:
 * it is kept nowhere, so whoever starts the server must show it. Null where there are users already.
 */
export async function bootstrap({ ctx }: { ctx: Pick<Dependencies, 'db'> }): Promise<string | null> {
  const text = newTokenText()
  const sha256 = await tokenSha256(text)
  return inTransaction(ctx, async (tx) => {
    // Two servers may start on one PostgreSQL at once: the second waits here, then finds the user.
    await tx.execute(sql`lock table ${users} in share row exclusive mode`)
    const [user] = await tx.select({ id: users.id }).from(users).limit(1)
    if (user !== undefined) return null
    const [admin] = await tx.insert(users).values({ name: ADMIN, isAdmin: true }).returning()
    await tx.insert(tokens).values({ userId: admin!.id, name: FIRST_TOKEN, sha256, scopes: ADMIN_SCOPES })
    const nobody = { principal: { kind: 'anonymous' }, requestId: 'bootstrap' } as const
    await recordAudit({ ctx: nobody, tx, entry: { organizationId: null, action: 'registry.bootstrap', subject: ADMIN } })
    return text
  })
}
