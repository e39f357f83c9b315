import type { Dtype } from '../../../patch/dtype.ts'
import type { Factor } from '../../../patch/edit.ts'
import type { Extent } from '../../../patch/extent.ts'
import { sliceExtents } from '../../../patch/layout.ts'
import type { ManifestTensor } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { blobKey, type SignedRequest } from '../../ports/blob-store.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { planMerge, type PlannedPatch } from '../derivations/plan-merge.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { attemptPrefix } from './attempt.ts'

export interface FactorSource { get: SignedRequest; length: number; dtype: Dtype; transpose: boolean }

export interface MergeSpec {
  kind: 'merge'
  rule: 'lora-f32/1'
  derivation: string
  tensors: {
    name: string
    dtype: Dtype
    rows: number
    cols: number
    length: number
    source: SignedRequest
    addends: { left: FactorSource; right: FactorSource; rank: number; scale: number }[]
    put: SignedRequest
    output: string
  }[]
}

/** What a merge job reads and writes: each changed tensor, the factors that change it, and one place for the result. */
export async function mergeSpec(ctx: RequestContext, job: JobRow, attempt: Attempt): Promise<MergeSpec> {
  const plan = await planMerge({ db: ctx.db, derivationId: job.derivationId! })
  const tensors = plan.changed.map(async ({ tensor, addends }, index) => {
    const output = outputKey(attempt, index)
    return {
      name: tensor.name,
      dtype: tensor.dtype,
      rows: tensor.shape[0]!,
      cols: tensor.shape[1]!,
      length: tensor.length,
      source: await signTensor(ctx, plan.targetExtents, tensor),
      addends: await Promise.all(addends.map(async ({ patch, edit, scale }) => ({
        left: await signFactor(ctx, patch, edit.left),
        right: await signFactor(ctx, patch, edit.right),
        rank: edit.rank,
        scale,
      }))),
      put: await ctx.blobs.signPut(output, { size: tensor.length }),
      output,
    }
  })
  return { kind: 'merge', rule: plan.recipe.rule, derivation: job.derivationId!, tensors: await Promise.all(tensors) }
}

/** Where an attempt stages the changed tensor at this position of the plan. */
export function outputKey(attempt: Attempt, index: number): string {
  return `${attemptPrefix(attempt)}/${index}`
}

async function signFactor(ctx: RequestContext, patch: PlannedPatch, factor: Factor): Promise<FactorSource> {
  const tensor = patch.tensors.get(factor.tensor)!
  return { get: await signTensor(ctx, patch.extents, tensor), length: tensor.length, dtype: tensor.dtype, transpose: factor.transpose }
}

async function signTensor(ctx: RequestContext, extents: ReadonlyMap<string, readonly Extent[]>, tensor: ManifestTensor): Promise<SignedRequest> {
  const [extent, ...more] = sliceExtents(extents.get(tensor.file)!, tensor.offset, tensor.offset + tensor.length)
  if (extent === undefined || more.length > 0) throw new Error(`${tensor.name} of ${tensor.file} lies in ${1 + more.length} extents, not in one`)
  return ctx.blobs.signGet(blobKey(extent.blob), { offset: extent.offset, length: extent.length })
}
