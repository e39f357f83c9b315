import { and, eq, exists, or, sql, type SQL } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { datasets, datasetVersions, organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import type { Principal } from '../authorization/principal.ts'
import { ofOwnOrganization, visibleTo } from '../authorization/visibility.ts'
import type { OrganizationRow } from '../organizations/find.ts'

export type DatasetRow = typeof datasets.$inferSelect
export type DatasetVersionRow = typeof datasetVersions.$inferSelect
export interface FoundDataset { organization: OrganizationRow; dataset: DatasetRow }
export interface FoundDatasetVersion extends FoundDataset { version: DatasetVersionRow; reference: string }

/** A family with nothing published in it is seen by its organization only. */
export function datasetFamilyVisibleTo(db: Database, principal: Principal): SQL {
  const published = db.select({ one: sql`1` }).from(datasetVersions).where(and(eq(datasetVersions.datasetId, datasets.id), eq(datasetVersions.state, 'published')))
  return or(and(eq(datasets.visibility, 'public'), exists(published)), ofOwnOrganization(principal, datasets.organizationId))!
}

/** By names, whatever their case. Throws `not_found` also for one that the caller may not see. */
export async function findDataset({ ctx, organization, name }: { ctx: Pick<RequestContext, 'db' | 'principal'>; organization: string; name: string }): Promise<FoundDataset> {
  const [row] = await ctx.db
    .select({ organization: organizations, dataset: datasets })
    .from(datasets)
    .innerJoin(organizations, eq(organizations.id, datasets.organizationId))
    .where(and(eq(sql`lower(${organizations.name})`, organization.toLowerCase()), eq(sql`lower(${datasets.name})`, name.toLowerCase()), datasetFamilyVisibleTo(ctx.db, ctx.principal)))
  if (row === undefined) throw notFound('The dataset', `${organization}/${name}`)
  return row
}

/**
 * One version of a dataset. Only its organization sees a version before it is published.
 * Throws `not_found` also for one that the caller may not see.
 */
export async function findDatasetVersion({ ctx, organization, name, version }: { ctx: Pick<RequestContext, 'db' | 'principal'>; organization: string; name: string; version: string }): Promise<FoundDatasetVersion> {
  const [row] = await ctx.db
    .select({ organization: organizations, dataset: datasets, version: datasetVersions })
    .from(datasetVersions)
    .innerJoin(datasets, eq(datasets.id, datasetVersions.datasetId))
    .innerJoin(organizations, eq(organizations.id, datasets.organizationId))
    .where(
      and(
        eq(sql`lower(${organizations.name})`, organization.toLowerCase()),
        eq(sql`lower(${datasets.name})`, name.toLowerCase()),
        eq(sql`lower(${datasetVersions.version})`, version.toLowerCase()),
        visibleTo(ctx.principal, datasets),
      ),
    )
  if (row === undefined || (row.version.state !== 'published' && !mayReadInternal(ctx.principal, row.organization.id))) {
    throw notFound('The dataset version', `${organization}/${name}@${version}`)
  }
  return { ...row, reference: `${row.organization.name}/${row.dataset.name}@${row.version.version}` }
}
