import { and, eq, isNull, lt, or } from 'drizzle-orm'
import { members, tokens, users } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { isTokenText, tokenSha256 } from '../tokens/token-text.ts'
import { SCOPES, type Principal, type Role, type Scope } from './principal.ts'

/** How stale `lastUsedAt` may be: a write per request would cost more than it tells. */
const LAST_USED_SECONDS = 60

/**
 * Who a token stands for. Throws `unauthenticated` with the same words for a token that is unknown, revoked
 * or expired; only a mistyped one, whose checksum is wrong, is told apart.
 */
export async function identifyPrincipal({ ctx, token }: { ctx: Dependencies; token: string }): Promise<Principal> {
  if (!isTokenText(token)) throw new ApiError('unauthenticated', 'The token is mistyped or cut off: its checksum is wrong. Copy it again, whole.')
  const [found] = await ctx.db
    .select({ token: tokens, user: users })
    .from(tokens)
    .innerJoin(users, eq(users.id, tokens.userId))
    .where(eq(tokens.sha256, await tokenSha256(token)))
  const now = ctx.clock.now()
  if (found === undefined || found.token.revokedAt !== null || (found.token.expiresAt !== null && found.token.expiresAt <= now)) {
    throw new ApiError('unauthenticated', 'The token is not valid: it is unknown, revoked or expired. Make a new one with POST /v1/tokens, or ask an administrator.')
  }
  const roles = await ctx.db.select({ organizationId: members.organizationId, role: members.role }).from(members).where(eq(members.userId, found.user.id))
  await touchToken(ctx, found.token, now)
  return narrow(found, new Map(roles.map((row) => [row.organizationId, row.role])))
}

function narrow({ token, user }: { token: typeof tokens.$inferSelect; user: typeof users.$inferSelect }, roles: ReadonlyMap<string, Role>): Principal {
  const only = token.organizationId
  const role = only === null ? undefined : user.isAdmin ? 'admin' : roles.get(only)
  return {
    kind: 'user',
    userId: user.id,
    userName: user.name,
    tokenId: token.id,
    scopes: SCOPES.filter((scope): scope is Scope => token.scopes.includes(scope)),
    isAdmin: user.isAdmin && only === null,
    organizationId: only,
    roles: only === null ? roles : new Map(role === undefined ? [] : [[only, role]]),
  }
}

async function touchToken(ctx: Dependencies, { id, lastUsedAt }: typeof tokens.$inferSelect, now: Date): Promise<void> {
  const stale = new Date(now.getTime() - LAST_USED_SECONDS * 1000)
  if (lastUsedAt !== null && lastUsedAt >= stale) return
  await ctx.db.update(tokens).set({ lastUsedAt: now }).where(and(eq(tokens.id, id), or(isNull(tokens.lastUsedAt), lt(tokens.lastUsedAt, stale))))
}
