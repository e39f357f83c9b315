import type { Rule } from '../../../patch/derivation.ts'
import type { Dtype } from '../../../patch/dtype.ts'
import type { Extent } from '../../../patch/extent.ts'
import { sliceExtents } from '../../../patch/layout.ts'
import type { Block, Contribution, StoredBytes } from '../../../patch/merge-plan.ts'
import type { RequestContext } from '../../context.ts'
import { blobKey, type SignedRequest } from '../../ports/blob-store.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { planMerge, type MergePlan } from '../derivations/plan-merge.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { attemptPrefix } from './attempt.ts'

export interface SignedBytes { get: SignedRequest; length: number; dtype: Dtype }

export interface MergeSpec {
  kind: 'merge'
  rules: Rule[]
  derivation: string
  tensors: {
    name: string
    dtype: Dtype
    rows: number
    cols: number
    length: number
    source: SignedRequest
    factors: SignedBytes[]
    blocks: Block<SignedBytes>[]
    put: SignedRequest
    output: string
  }[]
}

/** What a merge job reads and writes: each changed tensor, what changes it, and one place for the result. */
export async function mergeSpec(ctx: RequestContext, job: JobRow, attempt: Attempt): Promise<MergeSpec> {
  const plan = await planMerge({ db: ctx.db, derivationId: job.derivationId! })
  const sign = (bytes: StoredBytes) => signStored(ctx, plan, bytes)
  const tensors = plan.changed.map(async ({ name, dtype, rows, cols, source, factors, blocks }, index) => {
    const output = outputKey(attempt, index)
    return {
      name, dtype, rows, cols, length: source.length,
      source: await signRange(ctx, plan.targetExtents, source),
      factors: await Promise.all(factors.map(sign)),
      blocks: await Promise.all(blocks.map(async (block) => ({ ...block, contributions: await Promise.all(block.contributions.map((one) => signContribution(one, sign))) }))),
      put: await ctx.blobs.signPut(output, { size: source.length }),
      output,
    }
  })
  return { kind: 'merge', rules: [...plan.recipe.rules], derivation: job.derivationId!, tensors: await Promise.all(tensors) }
}

/** Where an attempt stages the changed tensor at this position of the plan. */
export function outputKey(attempt: Attempt, index: number): string {
  return `${attemptPrefix(attempt)}/${index}`
}

async function signContribution(one: Contribution<StoredBytes>, sign: (bytes: StoredBytes) => Promise<SignedBytes>): Promise<Contribution<SignedBytes>> {
  switch (one.kind) {
    case 'product': case 'dora': return one
    case 'initial': return { ...one, base: await sign(one.base) }
    case 'dense': return { ...one, value: await sign(one.value), base: one.base && await sign(one.base) }
    case 'replace': return { ...one, value: await sign(one.value) }
  }
}

async function signStored(ctx: RequestContext, plan: MergePlan, bytes: StoredBytes): Promise<SignedBytes> {
  const extents = bytes.of === 'base' ? plan.baseExtents : plan.patchExtents
  return { get: await signRange(ctx, extents[bytes.patch]!, bytes), length: bytes.length, dtype: bytes.dtype }
}

/** A GET of just these bytes of a file. */
export async function signRange(ctx: RequestContext, extents: ReadonlyMap<string, readonly Extent[]>, { file, offset, length }: { file: string; offset: number; length: number }): Promise<SignedRequest> {
  const [extent, ...more] = sliceExtents(extents.get(file)!, offset, offset + length)
  if (extent === undefined || more.length > 0) throw new Error(`the bytes from ${offset} on of ${file} lie in ${1 + more.length} extents, not in one`)
  return ctx.blobs.signGet(blobKey(extent.blob), { offset: extent.offset, length: extent.length })
}
