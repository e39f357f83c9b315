import { and, eq, exists, or, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { models, modelVersions, organizations, patches, patchVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { ofOwnOrganization } from '../authorization/visibility.ts'
import type { Principal } from '../authorization/principal.ts'

export type OrganizationRow = typeof organizations.$inferSelect

/** An organization is seen by its members, and by everybody once it has published something public. */
export function organizationVisibleTo(db: Database, principal: Principal) {
  const model = db
    .select({ one: sql`1` })
    .from(models)
    .innerJoin(modelVersions, eq(modelVersions.modelId, models.id))
    .where(and(eq(models.organizationId, organizations.id), eq(models.visibility, 'public'), eq(modelVersions.state, 'published')))
  const patch = db
    .select({ one: sql`1` })
    .from(patches)
    .innerJoin(patchVersions, eq(patchVersions.patchId, patches.id))
    .where(and(eq(patches.organizationId, organizations.id), eq(patches.visibility, 'public'), eq(patchVersions.state, 'published')))
  return or(ofOwnOrganization(principal, organizations.id), exists(model), exists(patch))!
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
