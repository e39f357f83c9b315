import { eq } from 'drizzle-orm'
import { datasetVersions, modelVersions, patchVersions, trainings } from '../../../db/schema.ts'
import type { EvolveSpec, FinetuneSpec } from '../../../patch/training.ts'
import type { RequestContext } from '../../context.ts'
import type { JobRow } from '../jobs/job-view.ts'
import type { VersionOwner } from '../uploads/subject.ts'
import { signFiles, type SignedFile } from './sign-files.ts'

/** A folder that runners have, or a dataset of the registry; null for the Hub. */
export type DataSpec = { folder: string } | { dataset: string; digest: string; files: SignedFile[] } | null
/** With the name of the base as well, which the patch's files name. */
export interface FinetuneJobSpec extends Omit<FinetuneSpec, 'base' | 'data'> { kind: 'finetune'; base: SignedFile[]; baseName: string; data: DataSpec }
export interface EvolveJobSpec extends Omit<EvolveSpec, 'parent' | 'data'> { kind: 'evolve'; parent: SignedFile[]; data: DataSpec }

/** What a finetune job reads: the base, the data, and how to train. */
export async function finetuneSpec(ctx: RequestContext, job: JobRow): Promise<FinetuneJobSpec> {
  const [row] = await ctx.db
    .select({ spec: trainings.spec, modelVersionId: patchVersions.baseVersionId, dataset: { id: datasetVersions.id, digest: datasetVersions.digest } })
    .from(trainings)
    .innerJoin(patchVersions, eq(patchVersions.id, trainings.patchVersionId))
    .leftJoin(datasetVersions, eq(datasetVersions.id, trainings.datasetVersionId))
    .where(eq(trainings.jobId, job.id))
  const { base: baseName, data, ...spec } = row!.spec as FinetuneSpec
  return { kind: 'finetune', ...spec, baseName, base: await signVersion(ctx, { modelVersionId: row!.modelVersionId }), data: await signData(ctx, data, row!.dataset) }
}

/** What an evolve job reads: the parent, the data, and how to train it further. */
export async function evolveSpec(ctx: RequestContext, job: JobRow): Promise<EvolveJobSpec> {
  const [row] = await ctx.db
    .select({ spec: trainings.spec, modelVersionId: modelVersions.parentId, dataset: { id: datasetVersions.id, digest: datasetVersions.digest } })
    .from(trainings)
    .innerJoin(modelVersions, eq(modelVersions.id, trainings.modelVersionId))
    .leftJoin(datasetVersions, eq(datasetVersions.id, trainings.datasetVersionId))
    .where(eq(trainings.jobId, job.id))
  const { parent: _, data, ...spec } = row!.spec as EvolveSpec
  return { kind: 'evolve', ...spec, parent: await signVersion(ctx, { modelVersionId: row!.modelVersionId! }), data: await signData(ctx, data, row!.dataset) }
}

async function signData(ctx: RequestContext, data: string | null, dataset: { id: string; digest: string | null } | null): Promise<DataSpec> {
  if (data === null) return null
  return dataset === null ? { folder: data } : { dataset: data, digest: dataset.digest!, files: await signVersion(ctx, { datasetVersionId: dataset.id }) }
}

function signVersion(ctx: RequestContext, owner: VersionOwner): Promise<SignedFile[]> {
  return signFiles({ ctx, owner, computed: (path) => { throw new Error(`${path} of a published version has an extent without bytes`) } })
}
