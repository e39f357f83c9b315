/** Random tensors for the tests that hold the core's analysis to its definitions, and its paths to each other. */
import { sampledRows } from '../../patch/analysis-plan.ts'
import type { MergeableDtype, TargetDtype } from '../../patch/dtype.ts'
import { random } from './random-merge.ts'
import { element, setElement, widthOf, type Stored } from './reference.ts'
import type { AnalysisSpec } from './tensor-analysis.ts'

export interface AnalysisCase {
  readonly rows: number
  readonly cols: number
  readonly ranks: readonly number[]
  readonly base: TargetDtype
  readonly target: TargetDtype
  readonly factors: MergeableDtype
  readonly seed: number
  readonly transpose?: boolean
  /** Of the values of W; 0.1 where it is not given. */
  readonly size?: number
}

interface Values extends Stored {
  readonly values: readonly number[]
}

export interface RandomAnalysis {
  readonly spec: AnalysisSpec & { readonly sample: { readonly rows: readonly number[]; readonly bytes: Uint8Array } | null }
  readonly w: Values
  readonly evolved: Values
  readonly products: readonly { readonly left: readonly number[]; readonly right: readonly number[]; readonly rank: number; readonly scale: number; readonly contribution: Product }[]
  readonly transpose: boolean
}
type Product = Extract<AnalysisSpec['contributions'][number], { kind: 'product' }>

/** Values as stored in the dtype, and their bytes. */
export function stored(dtype: TargetDtype, values: readonly number[]): Values {
  const made = { dtype, bytes: new Uint8Array(values.length * widthOf(dtype)) }
  values.forEach((value, index) => setElement(made, index, value))
  return { ...made, values: values.map((_, index) => element(made, index)) }
}

export function randomAnalysis({ rows, cols, ranks, base, target, factors, seed, transpose = false, size = 0.1 }: AnalysisCase): RandomAnalysis {
  const next = random(seed)
  const many = (count: number, scale: number) => Array.from({ length: count }, () => (next() - 0.5) * scale)
  const w = stored(base, many(rows * cols, size))
  const evolved = stored(target, w.values.map((value) => value + (next() - 0.5) * size * 0.1))
  const products = ranks.map((rank, index) => {
    const left = stored(factors, many(rows * rank, 1)), right = stored(factors, many(rank * cols, 1))
    const factor = ({ bytes }: Stored, height: number, width: number) => ({ bytes, dtype: factors, offset: 0, strides: transpose ? [1, height] as const : [width, 1] as const })
    const scale = Math.fround(0.01 * (index + 1) / 3)
    return { left: left.values, right: right.values, rank, scale, contribution: { kind: 'product' as const, left: factor(left, rows, rank), right: factor(right, rank, cols), rank, scale } }
  })
  const numbers = sampledRows(rows, 5)
  const width = w.bytes.length / rows
  const sample = Buffer.concat(numbers.map((row) => w.bytes.subarray(row * width, (row + 1) * width)))
  const spec = { baseDtype: base, dtype: target, rows, cols, contributions: products.map(({ contribution }) => contribution), sample: numbers.length === 0 ? null : { rows: numbers, bytes: sample } }
  return { spec, w, evolved, products, transpose }
}
