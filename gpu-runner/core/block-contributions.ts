import { DTYPE_BITS, type MergeableDtype, type TargetDtype } from '../../patch/dtype.ts'
import type { Block, FactorView } from '../../patch/merge-plan.ts'
import type { Contribution, FactorBytes } from './tensor-merge.ts'

/** One of a plan's `factors`, read. */
export interface LoadedFactor {
  readonly bytes: Uint8Array
  readonly dtype: MergeableDtype
}

/** A block's contributions as the core takes them. Throws for a kind that it does not know. */
export function blockContributions({ count, contributions }: Block<{ readonly dtype: TargetDtype }>, cols: number, factors: readonly LoadedFactor[]): Contribution[] {
  return contributions.map((one): Contribution => {
    switch (one.kind) {
      case 'product':
        return { kind: 'product', ...productOf(one, factors) }
      case 'dora': {
        const { magnitude, axis, weight } = one
        const { bytes, dtype } = factors[magnitude.factor]!
        const width = DTYPE_BITS[dtype] / 8
        const values = bytes.subarray(magnitude.offset * width, (magnitude.offset + (axis === 'rows' ? count : cols)) * width)
        return { kind: 'dora', ...productOf(one, factors), magnitude: { bytes: values, dtype }, axis, weight }
      }
      case 'dense':
        return { kind: 'dense', scale: one.scale, value: one.value.dtype, base: one.base && one.base.dtype }
      case 'replace':
        return { kind: 'replace', value: one.value.dtype }
      case 'initial':
        throw new Error(`the core cannot merge a contribution of the kind ${one.kind}`)
    }
  })
}

/** What a block streams with its rows, in the order of mergeRows (tensor-merge.ts). */
export function operandsOf<Bytes>({ contributions }: Block<Bytes>): Bytes[] {
  return contributions.flatMap((one) => {
    if (one.kind === 'replace') return [one.value]
    if (one.kind === 'dense') return one.base === null ? [one.value] : [one.value, one.base]
    return []
  })
}

function productOf({ left, right, rank, scale }: { left: FactorView; right: FactorView; rank: number; scale: number }, factors: readonly LoadedFactor[]) {
  const view = ({ factor, offset, strides }: FactorView): FactorBytes => ({ ...factors[factor]!, offset, strides })
  return { left: view(left), right: view(right), rank, scale }
}
