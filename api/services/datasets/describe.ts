import { desc, eq } from 'drizzle-orm'
import { datasetVersions } from '../../../db/schema.ts'
import type { ManifestFile } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import type { PublishState, Rejection } from '../uploads/subject.ts'
import { findDataset, findDatasetVersion, type DatasetVersionRow } from './find.ts'

export interface DatasetVersionSummaryView {
  version: string
  state: PublishState
  digest: string | null
  createdAt: string
  publishedAt: string | null
}
export interface DatasetView {
  organization: string
  name: string
  description: string
  visibility: 'public' | 'internal'
  createdAt: string
  versions: DatasetVersionSummaryView[]
}
export interface DatasetVersionView extends DatasetVersionSummaryView {
  reference: string
  organization: string
  name: string
  files: ManifestFile[]
  rejection: Rejection[] | null
}

/** A dataset with its versions, newest first; unpublished ones for its own organization only. */
export async function describeDataset({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string } }): Promise<DatasetView> {
  const { organization, dataset } = await findDataset({ ctx, ...input })
  const rows = await ctx.db.select().from(datasetVersions).where(eq(datasetVersions.datasetId, dataset.id)).orderBy(desc(datasetVersions.createdAt), desc(datasetVersions.id))
  const seen = mayReadInternal(ctx.principal, organization.id) ? rows : rows.filter((row) => row.state === 'published')
  const { name, description, visibility, createdAt } = dataset
  return { organization: organization.name, name, description, visibility, createdAt: createdAt.toISOString(), versions: seen.map(toSummary) }
}

export async function describeDatasetVersion({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<DatasetVersionView> {
  const { organization, dataset, version, reference } = await findDatasetVersion({ ctx, ...input })
  return { reference, organization: organization.name, name: dataset.name, ...toSummary(version), files: [...(version.manifest?.files ?? [])], rejection: version.rejection }
}

function toSummary({ version, state, digest, createdAt, publishedAt }: DatasetVersionRow): DatasetVersionSummaryView {
  return { version, state, digest, createdAt: createdAt.toISOString(), publishedAt: publishedAt?.toISOString() ?? null }
}
