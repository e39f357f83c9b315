import { and, eq, exists, inArray, or, sql, type SQL } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { models, modelVersions, organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import type { Principal } from '../authorization/principal.ts'
import { ofOwnOrganization, visibleTo } from '../authorization/visibility.ts'
import { modelVersionColumns, withModelManifest } from '../manifests.ts'
import type { OrganizationRow } from '../organizations/find.ts'

export type ModelRow = typeof models.$inferSelect
export type ModelVersionRow = typeof modelVersions.$inferSelect
export interface FoundModel { organization: OrganizationRow; model: ModelRow }
export interface FoundModelVersion extends FoundModel { version: ModelVersionRow; reference: string }

/** A family with nothing published in it is seen by its organization only. */
export function modelFamilyVisibleTo(db: Database, principal: Principal): SQL {
  const published = db.select({ one: sql`1` }).from(modelVersions).where(and(eq(modelVersions.modelId, models.id), eq(modelVersions.state, 'published')))
  return or(and(eq(models.visibility, 'public'), exists(published)), ofOwnOrganization(principal, models.organizationId))!
}

interface Scope { ctx: Pick<RequestContext, 'db' | 'principal'>; tx?: Database }

/** By names, whatever their case. Throws `not_found` also for one that the caller may not see. */
export async function findModel({ ctx, tx, organization, name }: Scope & { organization: string; name: string }): Promise<FoundModel> {
  const db = tx ?? ctx.db
  const [row] = await db
    .select({ organization: organizations, model: models })
    .from(models)
    .innerJoin(organizations, eq(organizations.id, models.organizationId))
    .where(and(eq(sql`lower(${organizations.name})`, organization.toLowerCase()), eq(sql`lower(${models.name})`, name.toLowerCase()), modelFamilyVisibleTo(db, ctx.principal)))
  if (row === undefined) throw notFound('The model', `${organization}/${name}`)
  return row
}

/**
 * One version of a model. Only its organization sees a version before it is published.
 * Throws `not_found` also for one that the caller may not see.
 */
export async function findModelVersion({ ctx, tx, organization, name, version }: Scope & { organization: string; name: string; version: string }): Promise<FoundModelVersion> {
  const db = tx ?? ctx.db
  const [row] = await db
    .select({ organization: organizations, model: models, version: modelVersionColumns })
    .from(modelVersions)
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .innerJoin(organizations, eq(organizations.id, models.organizationId))
    .where(
      and(
        eq(sql`lower(${organizations.name})`, organization.toLowerCase()),
        eq(sql`lower(${models.name})`, name.toLowerCase()),
        eq(sql`lower(${modelVersions.version})`, version.toLowerCase()),
        visibleTo(ctx.principal, models),
      ),
    )
  if (row === undefined || (row.version.state !== 'published' && !mayReadInternal(ctx.principal, row.organization.id))) {
    throw notFound('The model version', `${organization}/${name}@${version}`)
  }
  return { ...row, version: await withModelManifest(db, row.version), reference: `${row.organization.name}/${row.model.name}@${row.version.version}` }
}

/** `org/name@version` of versions by id, for an answer about something else that names them. */
export async function modelVersionReferences(db: Database, ids: readonly string[]): Promise<Map<string, string>> {
  if (ids.length === 0) return new Map()
  const rows = await db
    .select({ id: modelVersions.id, organization: organizations.name, name: models.name, version: modelVersions.version })
    .from(modelVersions)
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .innerJoin(organizations, eq(organizations.id, models.organizationId))
    .where(inArray(modelVersions.id, [...new Set(ids)]))
  return new Map(rows.map((row) => [row.id, `${row.organization}/${row.name}@${row.version}`]))
}

export async function modelVersionReference(db: Database, id: string): Promise<string | null> {
  return (await modelVersionReferences(db, [id])).get(id) ?? null
}
