import { desc, eq } from 'drizzle-orm'
import { modelVersions } from '../../../db/schema.ts'
import type { ManifestFile, ManifestTensor, ModelFacts } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import type { PublishState, Rejection } from '../uploads/subject.ts'
import { describeTraining, type TrainingView } from '../trainings/describe.ts'
import { findModel, findModelVersion, modelVersionReference, modelVersionReferences } from './find.ts'

export interface ParentView { reference: string; kind: string }
export interface ModelVersionSummaryView {
  version: string
  state: PublishState
  digest: string | null
  origin: 'uploaded' | 'derived'
  parent: ParentView | null
  createdAt: string
  publishedAt: string | null
}
export interface ModelView {
  organization: string
  name: string
  description: string
  visibility: 'public' | 'internal'
  createdAt: string
  versions: ModelVersionSummaryView[]
}
export interface ModelVersionView extends ModelVersionSummaryView {
  reference: string
  organization: string
  name: string
  facts: ModelFacts | null
  files: ManifestFile[]
  tensorCount: number
  parameterCount: number
  rejection: Rejection[] | null
  /** Null for what was uploaded. */
  training: TrainingView | null
}

/** A model with its versions, newest first; unpublished ones for its own organization only. */
export async function describeModel({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string } }): Promise<ModelView> {
  const { organization, model } = await findModel({ ctx, ...input })
  const rows = await ctx.db
    .select({
      version: modelVersions.version,
      state: modelVersions.state,
      digest: modelVersions.digest,
      origin: modelVersions.origin,
      parentId: modelVersions.parentId,
      parentKind: modelVersions.parentKind,
      createdAt: modelVersions.createdAt,
      publishedAt: modelVersions.publishedAt,
    })
    .from(modelVersions)
    .where(eq(modelVersions.modelId, model.id))
    .orderBy(desc(modelVersions.createdAt), desc(modelVersions.id))
  const seen = mayReadInternal(ctx.principal, organization.id) ? rows : rows.filter((row) => row.state === 'published')
  const parents = await modelVersionReferences(ctx.db, seen.map((row) => row.parentId).filter((id) => id !== null))
  return {
    organization: organization.name,
    name: model.name,
    description: model.description,
    visibility: model.visibility,
    createdAt: model.createdAt.toISOString(),
    versions: seen.map(({ parentId, parentKind, createdAt, publishedAt, ...row }) => ({
      ...row,
      parent: parentId === null ? null : { reference: parents.get(parentId)!, kind: parentKind! },
      createdAt: createdAt.toISOString(),
      publishedAt: publishedAt?.toISOString() ?? null,
    })),
  }
}

export async function describeModelVersion({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<ModelVersionView> {
  const { organization, model, version, reference } = await findModelVersion({ ctx, ...input })
  const { manifest } = version
  return {
    reference,
    organization: organization.name,
    name: model.name,
    version: version.version,
    state: version.state,
    digest: version.digest,
    origin: version.origin,
    parent: version.parentId === null ? null : { reference: (await modelVersionReference(ctx.db, version.parentId))!, kind: version.parentKind! },
    facts: manifest?.facts ?? null,
    files: manifest === null ? [] : [...manifest.files],
    tensorCount: manifest?.tensors.length ?? 0,
    parameterCount: countParameters(manifest?.tensors ?? []),
    createdAt: version.createdAt.toISOString(),
    publishedAt: version.publishedAt?.toISOString() ?? null,
    rejection: version.rejection,
    training: await describeTraining(ctx.db, { modelVersionId: version.id }),
  }
}

export function countParameters(tensors: readonly ManifestTensor[]): number {
  return tensors.reduce((sum, tensor) => sum + tensor.shape.reduce((product, size) => product * size, 1), 0)
}
