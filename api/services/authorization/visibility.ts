import { eq, inArray, or, sql, type SQL } from 'drizzle-orm'
import type { AnyPgColumn } from 'drizzle-orm/pg-core'
import { hasReadScope } from './authorize.ts'
import type { Principal } from './principal.ts'

/** The condition that every query over models or patches carries: public, or of an organization that the principal may read. */
export function visibleTo(principal: Principal, table: { visibility: AnyPgColumn; organizationId: AnyPgColumn }): SQL {
  return or(eq(table.visibility, 'public'), ofOwnOrganization(principal, table.organizationId))!
}

/** The rows of organizations that the principal may read in whole. */
export function ofOwnOrganization(principal: Principal, organizationId: AnyPgColumn): SQL {
  if (principal.kind === 'anonymous' || !hasReadScope(principal)) return sql`false`
  if (principal.isAdmin) return sql`true`
  return principal.roles.size === 0 ? sql`false` : inArray(organizationId, [...principal.roles.keys()])
}
