import { desc, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { distTags, modelVersions, patchMarks, patchVersions } from '../../../db/schema.ts'
import type { ManifestFile } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import { countParameters } from '../models/describe.ts'
import { modelVersionReferences } from '../models/find.ts'
import { describeTraining, type TrainingView } from '../trainings/describe.ts'
import type { PublishState, Rejection } from '../uploads/subject.ts'
import { findPatch, findPatchVersion } from './find.ts'

export interface PatchVersionSummaryView {
  version: string
  state: PublishState
  digest: string | null
  base: { reference: string; digest: string }
  targetRange: string | null
  createdAt: string
  publishedAt: string | null
  yanked: { at: string; reason: string } | null
  deprecated: string | null
}
export interface PatchView {
  organization: string
  name: string
  description: string
  visibility: 'public' | 'internal'
  readme: string | null
  createdAt: string
  distTags: Record<string, string>
  versions: PatchVersionSummaryView[]
}
export interface PatchVersionView extends PatchVersionSummaryView {
  reference: string
  organization: string
  name: string
  files: ManifestFile[]
  tensorCount: number
  parameterCount: number
  rejection: Rejection[] | null
  /** Null for what was uploaded. */
  training: TrainingView | null
}

const summaryColumns = {
  version: patchVersions.version,
  state: patchVersions.state,
  digest: patchVersions.digest,
  baseId: patchVersions.baseVersionId,
  baseDigest: modelVersions.digest,
  targetRange: patchVersions.targetRange,
  createdAt: patchVersions.createdAt,
  publishedAt: patchVersions.publishedAt,
  yankedAt: patchMarks.yankedAt,
  yankReason: patchMarks.yankReason,
  deprecated: patchMarks.deprecation,
}

/** The package document: versions newest first, unpublished ones for the patch's own organization only. */
export async function describePatch({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string } }): Promise<PatchView> {
  const { organization, patch } = await findPatch({ ctx, ...input })
  const rows = await selectSummaries(ctx.db).where(eq(patchVersions.patchId, patch.id)).orderBy(desc(patchVersions.createdAt), desc(patchVersions.id))
  const seen = mayReadInternal(ctx.principal, organization.id) ? rows : rows.filter((row) => row.state === 'published')
  return {
    organization: organization.name,
    name: patch.name,
    description: patch.description,
    visibility: patch.visibility,
    readme: patch.readme,
    createdAt: patch.createdAt.toISOString(),
    distTags: await readDistTags(ctx.db, patch.id),
    versions: await toSummaries(ctx.db, seen),
  }
}

export async function describePatchVersion({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<PatchVersionView> {
  const { organization, patch, version, reference } = await findPatchVersion({ ctx, ...input })
  const [summary] = await toSummaries(ctx.db, await selectSummaries(ctx.db).where(eq(patchVersions.id, version.id)))
  const { manifest } = version
  return {
    ...summary!,
    reference,
    organization: organization.name,
    name: patch.name,
    files: manifest === null ? [] : [...manifest.files],
    tensorCount: manifest?.tensors.length ?? 0,
    parameterCount: countParameters(manifest?.tensors ?? []),
    rejection: version.rejection,
    training: await describeTraining(ctx.db, { patchVersionId: version.id }),
  }
}

export async function readDistTags(db: Database, patchId: string): Promise<Record<string, string>> {
  const rows = await db
    .select({ tag: distTags.tag, version: patchVersions.version })
    .from(distTags)
    .innerJoin(patchVersions, eq(patchVersions.id, distTags.patchVersionId))
    .where(eq(distTags.patchId, patchId))
    .orderBy(distTags.tag)
  return Object.fromEntries(rows.map(({ tag, version }) => [tag, version]))
}

function selectSummaries(db: Database) {
  return db
    .select(summaryColumns)
    .from(patchVersions)
    .innerJoin(modelVersions, eq(modelVersions.id, patchVersions.baseVersionId))
    .leftJoin(patchMarks, eq(patchMarks.patchVersionId, patchVersions.id))
    .$dynamic()
}

async function toSummaries(db: Database, rows: Awaited<ReturnType<typeof selectSummaries>>): Promise<PatchVersionSummaryView[]> {
  const bases = await modelVersionReferences(db, rows.map((row) => row.baseId))
  return rows.map((row) => ({
    version: row.version,
    state: row.state,
    digest: row.digest,
    base: { reference: bases.get(row.baseId)!, digest: row.baseDigest! },
    targetRange: row.targetRange,
    createdAt: row.createdAt.toISOString(),
    publishedAt: row.publishedAt?.toISOString() ?? null,
    yanked: row.yankedAt === null ? null : { at: row.yankedAt.toISOString(), reason: row.yankReason ?? '' },
    deprecated: row.deprecated,
  }))
}
