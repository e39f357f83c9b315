import { DTYPE_BITS, type MergeableDtype } from '../../patch/dtype.ts'
import type { Block, FactorView } from '../../patch/merge-plan.ts'
import type { Addend, FactorBytes } from './tensor-merge.ts'

/** One of a plan's `factors`, read. */
export interface LoadedFactor {
  readonly bytes: Uint8Array
  readonly dtype: MergeableDtype
}

/** A block's contributions as the core takes them. Throws for a kind that it does not know. */
export function addends({ count, contributions }: Block<unknown>, cols: number, factors: readonly LoadedFactor[]): Addend[] {
  return contributions.map((one) => {
    if (one.kind !== 'product') throw new Error(`the core cannot merge a contribution of the kind ${one.kind}`)
    return { rank: one.rank, scale: one.scale, left: stored(one.left, factors, count * one.rank), right: stored(one.right, factors, one.rank * cols) }
  })
}

function stored({ factor, offset, strides }: FactorView, factors: readonly LoadedFactor[], count: number): FactorBytes {
  const { bytes, dtype } = factors[factor]!
  const width = DTYPE_BITS[dtype] / 8
  return { bytes: bytes.subarray(offset * width, (offset + count) * width), dtype, transpose: strides[1] !== 1 }
}
