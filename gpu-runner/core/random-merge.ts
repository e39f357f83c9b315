/** Random merges for the tests that hold the core's paths to reference.ts. */
import fc from 'fast-check'
import { MERGEABLE_DTYPES, TARGET_DTYPES, type MergeableDtype, type TargetDtype } from '../../patch/dtype.ts'
import { setElement, widthOf, type ReferenceContribution, type ReferenceMerge, type Stored, type StoredMatrix } from './reference.ts'
import type { Contribution, TensorSpec } from './tensor-merge.ts'

/** A small generator, so that a case's numbers come from one seed. */
export function random(seed: number): () => number {
  let state = seed >>> 0 || 1
  return () => {
    state ^= state << 13
    state >>>= 0
    state ^= state >>> 17
    state ^= state << 5
    return (state >>>= 0) / 2 ** 32
  }
}

/** `ordinary` like weights, `tiny` near and below the smallest normal, `huge` near overflow, `special` with zeros, infinities and NaNs of any payload. */
export type Values = 'ordinary' | 'tiny' | 'huge' | 'special'

const SIZES: Record<TargetDtype, { tiny: number; huge: number }> = {
  F64: { tiny: 2 ** -1030, huge: 2 ** 1022 },
  F32: { tiny: 2 ** -130, huge: 2 ** 126 },
  BF16: { tiny: 2 ** -130, huge: 2 ** 126 },
  F16: { tiny: 2 ** -20, huge: 30000 },
  F8_E4M3: { tiny: 2 ** -7, huge: 440 },
  F8_E5M2: { tiny: 2 ** -14, huge: 50000 },
}

/** The top bytes of zeros, infinities, NaNs, and large and small numbers; the bytes below are random. */
const SPECIAL_TOPS: Record<TargetDtype, readonly number[][]> = {
  F64: [[0, 0, 0, 0, 0, 0, 0, 0x80], [0, 0, 0, 0, 0, 0, 0xf0, 0x7f], [0, 0, 0, 0, 0, 0, 0xf0, 0xff], [0xf0, 0x7f], [0xf8, 0xff], [0xef, 0x7f]],
  F32: [[0, 0, 0, 0x80], [0, 0, 0x80, 0x7f], [0, 0, 0x80, 0xff], [0xc0, 0x7f], [0x81, 0xff], [0x7f, 0x7f], [0, 0x80]],
  BF16: [[0, 0x80], [0x80, 0x7f], [0x80, 0xff], [0xc1, 0x7f], [0x81, 0xff], [0x7f, 0x7f], [1, 0]],
  F16: [[0, 0x80], [0, 0x7c], [0, 0xfc], [1, 0x7e], [0, 0xfd], [0xff, 0x7b], [1, 0]],
  F8_E4M3: [[0x80], [0x7f], [0xff], [0x7e], [0xfe], [1]],
  F8_E5M2: [[0x80], [0x7c], [0xfc], [0x7d], [0xfe], [0x7b], [1]],
}

/** After this many, numbers come again: making them is slow. */
const PERIOD = 49_999

function numbers(dtype: TargetDtype, count: number, values: Values, next: () => number): Stored {
  if (count > PERIOD) {
    const { bytes } = numbers(dtype, PERIOD, values, next)
    const all = new Uint8Array(count * widthOf(dtype))
    for (let at = 0; at < all.length; at += bytes.length) all.set(bytes.subarray(0, all.length - at), at)
    return { dtype, bytes: all }
  }
  const stored = { dtype, bytes: new Uint8Array(count * widthOf(dtype)) }
  const size = values === 'tiny' || values === 'huge' ? SIZES[dtype][values] : 0.05
  for (let i = 0; i < count; i++) {
    setElement(stored, i, (next() * 2 - 1) * size)
    if (values !== 'special' || next() > 0.3) continue
    const tops = SPECIAL_TOPS[dtype]
    const top = tops[Math.floor(next() * tops.length)]!
    stored.bytes.set(top, (i + 1) * widthOf(dtype) - top.length)
  }
  return stored
}

/** A matrix somewhere within a larger tensor: before it, between its elements and behind it lie NaNs. */
function matrix(dtype: MergeableDtype, rows: number, cols: number, values: Values, next: () => number): StoredMatrix {
  const [offset, gap] = [Math.floor(next() * 4), 1 + Math.floor(next() * 3)]
  const strides = ([[cols * gap, gap], [gap, rows * gap], [cols * gap + 1, gap]] as const)[Math.floor(next() * 3)]!
  const all = { dtype, bytes: new Uint8Array((offset + (rows - 1) * strides[0] + (cols - 1) * strides[1] + 1 + offset) * widthOf(dtype)).fill(255) }
  const inside = numbers(dtype, rows * cols, values, next)
  const width = widthOf(dtype)
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      const at = i * cols + j
      all.bytes.set(inside.bytes.subarray(at * width, (at + 1) * width), (offset + i * strides[0] + j * strides[1]) * width)
    }
  }
  return { ...all, offset, strides }
}

export type Kind = 'product' | 'dora-rows' | 'dora-columns' | 'dense' | 'delta' | 'replace'

export interface Case {
  readonly dtype: TargetDtype
  readonly rows: number
  readonly cols: number
  readonly kinds: readonly Kind[]
  readonly ranks: readonly number[]
  readonly values: Values
  readonly factorDtype: MergeableDtype
  readonly operandDtype: TargetDtype
  /** 1, or another for DoRA and differences. */
  readonly weight: number
  readonly seed: number
}

export interface RandomMerge {
  readonly reference: ReferenceMerge
  readonly spec: TensorSpec
  /** As mergeRows takes them, of all rows. */
  readonly operands: readonly Uint8Array[]
}

export function build({ dtype, rows, cols, kinds, ranks, values, factorDtype, operandDtype, weight, seed }: Case): RandomMerge {
  const next = random(seed)
  const w = numbers(dtype, rows * cols, values, next)
  const factorValues = values === 'tiny' && factorDtype !== 'F16' ? 'tiny' : 'ordinary'
  const contributions = kinds.map((kind, p): ReferenceContribution => {
    const rank = ranks[p % ranks.length]!
    const scale = Math.fround(values === 'huge' && kind === 'product' ? 2 ** 100 * (p + 1) : 1.7 / (p + 1))
    const product = () => ({ rank, scale, left: matrix(factorDtype, rows, rank, factorValues, next), right: matrix(factorDtype, rank, cols, 'ordinary', next) })
    switch (kind) {
      case 'product':
        return { kind, ...product() }
      case 'dora-rows':
        return { kind: 'dora', axis: 'rows', weight, ...product(), magnitude: numbers(factorDtype, rows, 'ordinary', next) }
      case 'dora-columns':
        return { kind: 'dora', axis: 'columns', weight, ...product(), magnitude: numbers(factorDtype, cols, 'ordinary', next) }
      case 'dense':
        return { kind: 'dense', scale: weight, value: numbers(operandDtype, rows * cols, values, next), base: numbers(factorDtype, rows * cols, values, next) }
      case 'delta':
        return { kind: 'dense', scale: weight, value: numbers(operandDtype, rows * cols, values, next), base: null }
      case 'replace':
        return { kind: 'replace', value: numbers(operandDtype, rows * cols, values, next) }
    }
  })
  return {
    reference: { dtype, rows, cols, w: w.bytes, contributions },
    spec: { dtype, rows, cols, contributions: contributions.map(toContribution) },
    operands: contributions.flatMap((one) => ('value' in one ? ('base' in one && one.base ? [one.value.bytes, one.base.bytes] : [one.value.bytes]) : [])),
  }
}

function toContribution(one: ReferenceContribution): Contribution {
  if (one.kind === 'dense') return { ...one, value: one.value.dtype, base: one.base && one.base.dtype }
  if (one.kind === 'replace') return { ...one, value: one.value.dtype }
  return one
}

const summed = fc.constantFrom<Kind>('product', 'product', 'product', 'dora-rows', 'dora-columns', 'dense', 'delta')

/** Merges of every kind; `kinds` narrows the choice. */
export function cases(kinds: fc.Arbitrary<readonly Kind[]> = anyKinds): fc.Arbitrary<Case> {
  return fc.record({
    dtype: fc.constantFrom(...TARGET_DTYPES),
    rows: fc.integer({ min: 1, max: 23 }),
    cols: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 60, max: 150 }), fc.integer({ min: 180, max: 330 })),
    kinds,
    ranks: fc.array(fc.integer({ min: 1, max: 19 }), { minLength: 1, maxLength: 3 }),
    values: fc.constantFrom<Values>('ordinary', 'ordinary', 'tiny', 'huge', 'special'),
    factorDtype: fc.constantFrom(...MERGEABLE_DTYPES),
    operandDtype: fc.constantFrom(...TARGET_DTYPES),
    weight: fc.constantFrom(1, 1, 0.3, -2),
    seed: fc.integer({ min: 1, max: 2 ** 31 }),
  })
}

export const onlyProducts: fc.Arbitrary<readonly Kind[]> = fc.integer({ min: 1, max: 3 }).map((count) => new Array<Kind>(count).fill('product'))
const anyKinds: fc.Arbitrary<readonly Kind[]> = fc.oneof(
  { weight: 3, arbitrary: fc.array(summed, { minLength: 1, maxLength: 4 }) },
  { weight: 1, arbitrary: fc.constantFrom<readonly Kind[]>(['replace'], ['dora-rows'], ['dora-columns'], ['dense']) },
)
