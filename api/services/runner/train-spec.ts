import { eq } from 'drizzle-orm'
import { modelVersions, patchVersions, trainings } from '../../../db/schema.ts'
import type { EvolveSpec, FinetuneSpec } from '../../../patch/training.ts'
import type { RequestContext } from '../../context.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { signFiles, type SignedFile } from './sign-files.ts'

/** With the name of the base as well, which the patch's files name. */
export interface FinetuneJobSpec extends Omit<FinetuneSpec, 'base'> { kind: 'finetune'; base: SignedFile[]; baseName: string }
export interface EvolveJobSpec extends Omit<EvolveSpec, 'parent'> { kind: 'evolve'; parent: SignedFile[] }

/** What a finetune job reads: the base, and how to train on it. */
export async function finetuneSpec(ctx: RequestContext, job: JobRow): Promise<FinetuneJobSpec> {
  const [row] = await ctx.db
    .select({ spec: trainings.spec, modelVersionId: patchVersions.baseVersionId })
    .from(trainings)
    .innerJoin(patchVersions, eq(patchVersions.id, trainings.patchVersionId))
    .where(eq(trainings.jobId, job.id))
  const { base: baseName, ...spec } = row!.spec as FinetuneSpec
  return { kind: 'finetune', ...spec, baseName, base: await signModel(ctx, row!.modelVersionId) }
}

/** What an evolve job reads: the parent, and how to train it further. */
export async function evolveSpec(ctx: RequestContext, job: JobRow): Promise<EvolveJobSpec> {
  const [row] = await ctx.db
    .select({ spec: trainings.spec, modelVersionId: modelVersions.parentId })
    .from(trainings)
    .innerJoin(modelVersions, eq(modelVersions.id, trainings.modelVersionId))
    .where(eq(trainings.jobId, job.id))
  const { parent: _, ...spec } = row!.spec as EvolveSpec
  return { kind: 'evolve', ...spec, parent: await signModel(ctx, row!.modelVersionId!) }
}

function signModel(ctx: RequestContext, modelVersionId: string): Promise<SignedFile[]> {
  return signFiles({ ctx, owner: { modelVersionId }, computed: (path) => { throw new Error(`${path} of a published version has an extent without bytes`) } })
}
