import { tokens } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayCreateToken } from '../authorization/authorize.ts'
import type { Scope } from '../authorization/principal.ts'
import { findOrganization } from '../organizations/find.ts'
import { inTransaction } from '../transaction.ts'
import { newTokenText, tokenSha256 } from './token-text.ts'
import { toTokenView, type TokenView } from './token-view.ts'

export interface NewToken { name: string; scopes: Scope[]; organization?: string | undefined; expiresAt?: string | undefined }

/** A token of the caller. Its text is in the answer and nowhere else. */
export async function createToken({ ctx, input }: { ctx: RequestContext; input: NewToken }): Promise<TokenView & { token: string }> {
  const { principal } = ctx
  const organization = input.organization === undefined ? null : await findOrganization({ ctx, name: input.organization })
  assertMayCreateToken(principal, { scopes: input.scopes, organizationId: organization?.id ?? null })
  const expiresAt = input.expiresAt === undefined ? null : new Date(input.expiresAt)
  if (expiresAt !== null && expiresAt <= ctx.clock.now()) throw new ApiError('invalid_request', `expiresAt ${input.expiresAt} is in the past.`)
  const text = newTokenText()
  const sha256 = await tokenSha256(text)
  return inTransaction(ctx, async (tx) => {
    const [row] = await tx
      .insert(tokens)
      .values({ userId: principal.userId, name: input.name, sha256, scopes: input.scopes, organizationId: organization?.id ?? null, expiresAt })
      .returning()
    const view = toTokenView(row!, organization?.name ?? null)
    await recordAudit({ ctx, tx, entry: { organizationId: organization?.id ?? null, action: 'token.create', subject: view.id, after: view } })
    return { ...view, token: text }
  })
}
