import { and, eq } from 'drizzle-orm'
import { tokens } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayManageTokens } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { ofReachableTokens } from './reachable.ts'

/** Idempotent. Throws `not_found` for a token of somebody else. */
export async function revokeToken({ ctx, input }: { ctx: RequestContext; input: { id: string } }): Promise<void> {
  const { principal } = ctx
  assertMayManageTokens(principal)
  await inTransaction(ctx, async (tx) => {
    const [token] = await tx.select().from(tokens).where(and(eq(tokens.id, input.id), ofReachableTokens(principal))).for('update')
    if (token === undefined) throw notFound('The token', input.id)
    if (token.revokedAt !== null) return
    const revokedAt = ctx.clock.now()
    await tx.update(tokens).set({ revokedAt }).where(eq(tokens.id, token.id))
    await recordAudit({ ctx, tx, entry: { organizationId: token.organizationId, action: 'token.revoke', subject: token.id, before: { revokedAt: null }, after: { revokedAt } } })
  })
}
