import { and, eq, exists, or, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { ofOwnOrganization } from '../authorization/visibility.ts'
import type { Principal } from '../authorization/principal.ts'
import { PACKAGES, type PackageKind } from '../packages.ts'

export type OrganizationRow = typeof organizations.$inferSelect

/** An organization is seen by its members, and by everybody once it has published something public. */
export function organizationVisibleTo(db: Database, principal: Principal) {
  const published = (kind: PackageKind) => {
    const { versions, families, familyId } = PACKAGES[kind]
    return db
      .select({ one: sql`1` })
      .from(families)
      .innerJoin(versions, eq(familyId, families.id))
      .where(and(eq(families.organizationId, organizations.id), eq(families.visibility, 'public'), eq(versions.state, 'published')))
  }
  return or(ofOwnOrganization(principal, organizations.id), exists(published('model')), exists(published('patch')), exists(published('dataset')))!
}

/** By name, whatever its case. Throws `not_found` also for one that the caller may not see. */
export async function findOrganization({ ctx, tx, name }: { ctx: RequestContext; tx?: Database; name: string }): Promise<OrganizationRow> {
  const db = tx ?? ctx.db
  const [row] = await db
    .select()
    .from(organizations)
    .where(and(eq(sql`lower(${organizations.name})`, name.toLowerCase()), organizationVisibleTo(db, ctx.principal)))
  if (row === undefined) throw notFound('The organization', name)
  return row
}
