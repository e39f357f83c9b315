import { DTYPE_BITS, type MergeableDtype, type TargetDtype } from '../../patch/dtype.ts'
import type { Block, Contribution as Planned, FactorView } from '../../patch/merge-plan.ts'
import type { Core } from './core.ts'
import type { Contribution, FactorBytes } from './tensor-merge.ts'

/** One of a plan's `factors`, read. */
export interface LoadedFactor {
  readonly bytes: Uint8Array
  readonly dtype: MergeableDtype
}

type Initial<Bytes> = Extract<Planned<Bytes>, { readonly kind: 'initial' }>

interface Located {
  readonly dtype: TargetDtype
  /** In bytes. */
  readonly length: number
}

export interface BlockInputs<Bytes> {
  readonly core: Pick<Core, 'initialFactors'>
  /** The plan's, in order. */
  readonly factors: readonly LoadedFactor[]
  /** The whole of a base's tensor, for what PiSSA or OLoRA took out of it. */
  readonly readBase: (base: Bytes) => Promise<Uint8Array>
}

/** A block's contributions as the core takes them. Throws CoreError where the base does not decide an initial product. */
export async function blockContributions<Bytes extends Located>({ count, contributions }: Block<Bytes>, cols: number, { core, factors, readBase }: BlockInputs<Bytes>): Promise<Contribution[]> {
  const all: Contribution[] = []
  for (const one of contributions) all.push(one.kind === 'initial' ? await initialProduct(one, cols, core, await readBase(one.base)) : contributionOf(one, count, cols, factors))
  return all
}

/** One contribution as the core takes it: all but those that have to be made from a base first. */
export function contributionOf(one: Exclude<Planned<{ readonly dtype: TargetDtype }>, { readonly kind: 'initial' }>, count: number, cols: number, factors: readonly LoadedFactor[]): Contribution {
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
  }
}

/** The block's rows of what training took out of the whole tensor. */
async function initialProduct({ method, rank, scale, base, first }: Initial<Located>, cols: number, core: BlockInputs<Located>['core'], bytes: Uint8Array): Promise<Contribution> {
  const rows = (base.length * 8) / DTYPE_BITS[base.dtype] / cols
  const { left, right } = await core.initialFactors({ method, base: bytes, dtype: base.dtype, rows, cols, rank })
  return { kind: 'product', left: { ...left, offset: first * left.strides[0] }, right, rank, scale }
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
