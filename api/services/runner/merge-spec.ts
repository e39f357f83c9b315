import { eq } from 'drizzle-orm'
import { derivations } from '../../../db/schema.ts'
import type { Rule } from '../../../patch/derivation.ts'
import type { Dtype } from '../../../patch/dtype.ts'
import type { Extent } from '../../../patch/extent.ts'
import type { Block, Contribution } from '../../../patch/merge-plan.ts'
import type { RequestContext } from '../../context.ts'
import { blobKey, type SignedRequest } from '../../ports/blob-store.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import type { LocatedBytes } from '../../ports/tensor-merger.ts'
import { locateTensors } from '../derivations/locate-tensors.ts'
import { planMerge } from '../derivations/plan-merge.ts'
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
    /** Null where the result is measured and hashed, but not kept. */
    put: SignedRequest | null
  }[]
}

/** What a merge job reads and writes: each changed tensor, what changes it, and one place for the result where it is kept. */
export async function mergeSpec(ctx: RequestContext, job: JobRow, attempt: Attempt): Promise<MergeSpec> {
  const derivationId = job.derivationId!
  const [derivation] = await ctx.db.select({ state: derivations.state, storage: derivations.storage }).from(derivations).where(eq(derivations.id, derivationId))
  const plan = await planMerge({ db: ctx.db, derivationId })
  const stores = storesTensors(derivation!)
  const sign = async ({ dtype, ...extent }: LocatedBytes): Promise<SignedBytes> => ({ get: await signExtent(ctx, extent), length: extent.length, dtype })
  const tensors = locateTensors(plan).map(async ({ name, dtype, rows, cols, source, factors, blocks }, index) => ({
    name, dtype, rows, cols, length: source.length,
    source: await signExtent(ctx, source),
    factors: await Promise.all(factors.map(sign)),
    blocks: await Promise.all(blocks.map(async (block) => ({ ...block, contributions: await Promise.all(block.contributions.map((one) => signContribution(one, sign))) }))),
    put: stores ? await ctx.blobs.signPut(outputKey(attempt, index), { size: source.length }) : null,
  }))
  return { kind: 'merge', rules: [...plan.recipe.rules], derivation: derivationId, tensors: await Promise.all(tensors) }
}

/** Whether a merge job's tensors are kept: for storage `materialised`, and always where the merged model is ready, since then the job is to materialise it. */
export function storesTensors({ state, storage }: Pick<typeof derivations.$inferSelect, 'state' | 'storage'>): boolean {
  return state === 'ready' || storage === 'materialised'
}

/** Where an attempt stages the changed tensor at this position of the plan. */
export function outputKey(attempt: Attempt, index: number): string {
  return `${attemptPrefix(attempt)}/${index}`
}

async function signContribution(one: Contribution<LocatedBytes>, sign: (bytes: LocatedBytes) => Promise<SignedBytes>): Promise<Contribution<SignedBytes>> {
  switch (one.kind) {
    case 'product': case 'dora': return one
    case 'initial': return { ...one, base: await sign(one.base) }
    case 'dense': return { ...one, value: await sign(one.value), base: one.base && await sign(one.base) }
    case 'replace': return { ...one, value: await sign(one.value) }
  }
}

/** A GET of just these bytes. */
export function signExtent(ctx: RequestContext, { blob, offset, length }: Extent): Promise<SignedRequest> {
  return ctx.blobs.signGet(blobKey(blob), { offset, length })
}
