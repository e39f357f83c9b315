import { DTYPE_BITS, type MergeableDtype, type TargetDtype } from '../../patch/dtype.ts'
import { largest } from '../../patch/largest.ts'
import type { Block, Contribution as Planned, FactorView } from '../../patch/merge-plan.ts'
import { packedBytes } from '../../patch/packed-bytes.ts'
import { freeBuffer } from '../free-buffer.ts'
import type { Core } from './core.ts'
import { initialFactorsMemory } from './initial-factors.ts'
import { CoreError } from './library.ts'
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
  /** The whole of a base's tensor, for what PiSSA or OLoRA took out of it, in a buffer of its own, which is given back. */
  readonly readBase: (base: Bytes) => Promise<Uint8Array<ArrayBuffer>>
}

/** A block's contributions as the core takes them. Throws CoreError where the base does not decide an initial product. */
export async function blockContributions<Bytes extends Located>({ count, contributions }: Block<Bytes>, cols: number, { core, factors, readBase }: BlockInputs<Bytes>): Promise<Contribution[]> {
  const all: Contribution[] = []
  for (const one of contributions) all.push(one.kind === 'initial' ? await initialProduct(one, cols, core, await readBase(one.base)) : contributionOf(one, count, cols, factors))
  return all
}

/** The same for what is merged or measured row by row. Throws CoreError where a contribution has to be made from a whole tensor first. */
export function rowwiseContributions({ count, contributions }: Block<{ readonly dtype: TargetDtype }>, cols: number, factors: readonly LoadedFactor[]): Contribution[] {
  return contributions.map((one) => {
    if (one.kind === 'initial') throw new CoreError('invalid', 'what training took out of the base has to be made from a whole tensor')
    return contributionOf(one, count, cols, factors)
  })
}

/** Most bytes that a block takes beside its rows and the stored factors, about: packed, with what it is made from meanwhile. */
export function blockMemory({ count, contributions }: Block<Located>, cols: number): number {
  const made = contributions.flatMap((one) => (one.kind === 'initial' ? [{ ...one, rows: rowsOf(one.base, cols), cols }] : []))
  const factors = made.reduce((sum, { rank, rows }) => sum + 4 * rank * (rows + cols), 0)
  return packedBytes(count, cols, contributions) + factors + largest(made.map((one) => one.base.length + initialFactorsMemory(one)))
}

function contributionOf(one: Exclude<Planned<{ readonly dtype: TargetDtype }>, { readonly kind: 'initial' }>, count: number, cols: number, factors: readonly LoadedFactor[]): Contribution {
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
async function initialProduct({ method, rank, scale, base, first }: Initial<Located>, cols: number, core: BlockInputs<Located>['core'], bytes: Uint8Array<ArrayBuffer>): Promise<Contribution> {
  const { left, right } = await core.initialFactors({ method, base: bytes, dtype: base.dtype, rows: rowsOf(base, cols), cols, rank })
  freeBuffer(bytes)
  return { kind: 'product', left: { ...left, offset: first * left.strides[0] }, right, rank, scale }
}

function rowsOf({ length, dtype }: Located, cols: number): number {
  return (length * 8) / DTYPE_BITS[dtype] / cols
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
