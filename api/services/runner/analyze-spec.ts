import type { StoredRange } from '../../../patch/analysis-plan.ts'
import type { Dtype } from '../../../patch/dtype.ts'
import type { Block } from '../../../patch/merge-plan.ts'
import type { RequestContext } from '../../context.ts'
import type { SignedRequest } from '../../ports/blob-store.ts'
import { planStoredAnalysis } from '../analyses/plan.ts'
import { locateRange } from '../derivations/locate-tensors.ts'
import { readExtents } from '../derivations/read-extents.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { signExtent, type SignedBytes } from './merge-spec.ts'

interface SignedRange { get: SignedRequest; length: number }

export interface AnalyzeSpec {
  kind: 'analyze'
  analysis: string
  tensors: {
    name: string
    dtype: Dtype
    baseDtype: Dtype
    cols: number
    factors: SignedBytes[]
    runs: { block: Block<unknown>; target: SignedRange; base: SignedRange; sample: { row: number; base: SignedRange }[] }[]
  }[]
}

/** What an analyze job reads: each tensor that the patch changes, of base and target, and the factors that change it. */
export async function analyzeSpec(ctx: RequestContext, job: JobRow): Promise<AnalyzeSpec> {
  const plan = await planStoredAnalysis({ db: ctx.db, id: job.analysisId! })
  const [patch, base, target] = await Promise.all([
    readExtents(ctx.db, { patchVersionId: plan.patch.id }), readExtents(ctx.db, { modelVersionId: plan.base.id }), readExtents(ctx.db, { modelVersionId: plan.target.id }),
  ])
  const range = async (extents: typeof base, stored: StoredRange): Promise<SignedRange> => ({ get: await signExtent(ctx, locateRange(extents, stored)), length: stored.length })
  const tensors = plan.tensors.map(async ({ name, dtype, baseDtype, cols, factors, runs }) => ({
    name, dtype, baseDtype, cols,
    factors: await Promise.all(factors.map(async (factor) => ({ ...(await range(patch, factor)), dtype: factor.dtype }))),
    runs: await Promise.all(runs.map(async (run) => ({
      block: run.block,
      target: await range(target, run.target),
      base: await range(base, run.base),
      sample: await Promise.all(run.sample.map(async ({ row, base: stored }) => ({ row, base: await range(base, stored) }))),
    }))),
  }))
  return { kind: 'analyze', analysis: job.analysisId!, tensors: await Promise.all(tensors) }
}
