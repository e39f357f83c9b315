import { and, eq, inArray, isNull } from 'drizzle-orm'
import { tokens, users } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { ADMIN, ADMIN_SCOPES, FIRST_TOKEN } from '../users/bootstrap.ts'
import { inTransaction } from '../transaction.ts'
import { newTokenText, tokenSha256 } from './token-text.ts'

const REPLACEMENT = 'replacement of a lost token'

/**
 * For whoever may start the server: a token for the administrator, whose text is kept nowhere, in place of the one of the
 * first start and of earlier replacements, which end. Null where there is no administrator yet.
 */
export async function replaceAdminToken({ ctx }: { ctx: Pick<Dependencies, 'db' | 'clock'> }): Promise<string | null> {
  const text = newTokenText()
  const sha256 = await tokenSha256(text)
  return inTransaction(ctx, async (tx) => {
    const [admin] = await tx.select({ id: users.id }).from(users).where(and(eq(users.name, ADMIN), eq(users.isAdmin, true))).for('update')
    if (admin === undefined) return null
    const revokedAt = ctx.clock.now()
    const replaced = await tx
      .update(tokens)
      .set({ revokedAt })
      .where(and(eq(tokens.userId, admin.id), inArray(tokens.name, [FIRST_TOKEN, REPLACEMENT]), isNull(tokens.revokedAt)))
      .returning({ id: tokens.id })
    const [token] = await tx.insert(tokens).values({ userId: admin.id, name: REPLACEMENT, sha256, scopes: ADMIN_SCOPES }).returning()
    const nobody = { principal: { kind: 'anonymous' }, requestId: 'new-admin-token' } as const
    for (const { id } of replaced) await recordAudit({ ctx: nobody, tx, entry: { organizationId: null, action: 'token.revoke', subject: id, before: { revokedAt: null }, after: { revokedAt } } })
    await recordAudit({ ctx: nobody, tx, entry: { organizationId: null, action: 'token.create', subject: token!.id, after: { name: REPLACEMENT, scopes: ADMIN_SCOPES } } })
    return text
  })
}
