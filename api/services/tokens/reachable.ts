import { and, eq, type SQL } from 'drizzle-orm'
import { tokens } from '../../../db/schema.ts'
import type { Principal } from '../authorization/principal.ts'

/** The tokens that a token may list and revoke: its user's; where it is limited to one organization, only those limited to the same. */
export function ofReachableTokens(principal: Extract<Principal, { kind: 'user' }>): SQL {
  return and(eq(tokens.userId, principal.userId), principal.organizationId === null ? undefined : eq(tokens.organizationId, principal.organizationId))!
}
