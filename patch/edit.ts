/**
 * What one adapter does to one tensor of the target, or to some of its rows.
 *
 * A tensor is seen as a matrix: one of two dimensions as it is, n values as 1 × n, a convolution's (out, in, kernel…)
 * as out × in·kernel, experts' (E, rows, columns) as E·rows × columns. `cols` of an edit says which; the rows follow.
 */
export type Edit = AdditiveEdit | DoraEdit | DenseEdit | ReplaceEdit

/** A matrix within a stored tensor, in elements: (i, j) lies at `offset + i·strides[0] + j·strides[1]`. */
export interface MatrixView {
  readonly tensor: string
  readonly offset: number
  readonly strides: readonly [number, number]
}

/** A run of values within a stored tensor, one after the other, in elements from its start. */
export interface ValueRun {
  readonly tensor: string
  readonly offset: number
}

/** Rows `[first, first + count)` of the target tensor as a matrix. */
export interface RowRange {
  readonly first: number
  readonly count: number
}

interface Placed {
  /** Name of the tensor in the target. */
  readonly target: string
  readonly rows: RowRange
  readonly cols: number
  /** Where input and output embeddings are tied, and the edit is meant for both: it follows where a merge unties them. */
  readonly isShared: boolean
  /** Every adapter tensor that this edit consumes. */
  readonly consumes: readonly string[]
}

interface LowRank extends Placed {
  readonly rank: number
  /** `alpha/rank` or `alpha/√rank` in float64, before the patch's weight and the rounding to float32. */
  readonly scale: number
  /** (rows.count, rank), of the adapter. */
  readonly left: MatrixView
  /** (rank, cols), of the adapter. */
  readonly right: MatrixView
}

/**
 * `W += scale · (left @ right)`. Where the target's matrix lies the other way round than the layer's (`fan_in_fan_out`,
 * embeddings), the factors swap sides; fma(b, a) = fma(a, b), so the bits do not depend on it.
 */
export interface AdditiveEdit extends LowRank {
  readonly kind: 'additive'
  /** Set where training began by taking a product out of the base, which then has to be taken out here as well. */
  readonly initial: InitialFactors | null
}

/** The product that PiSSA or OLoRA took out of the base, made anew from it. */
export interface InitialFactors {
  readonly method: 'pissa' | 'olora'
  /** Name of the tensor of the base; it lies as the target's does, and has its shape. */
  readonly base: string
}

/** `W ← m·(W + scale · (left @ right))/n`, n being the norm of each stored row or of each stored column. */
export interface DoraEdit extends LowRank {
  readonly kind: 'dora'
  /** m: a value for each row of `rows`, or for each column. */
  readonly magnitude: ValueRun
  readonly axis: 'rows' | 'columns'
}

/** `W += scale · (value − base)`, element by element; without a base, `value` is the difference itself. */
export interface DenseEdit extends Placed {
  readonly kind: 'dense'
  /** Before the patch's weight, in float64. */
  readonly scale: number
  /** Of the adapter: rows.count · cols values. */
  readonly value: ValueRun
  /** Of the base, likewise. */
  readonly base: ValueRun | null
}

/** `W ← value`, rounded once to the target's dtype. */
export interface ReplaceEdit extends Placed {
  readonly kind: 'replace'
  readonly value: ValueRun
  /**
   * Set where the target's tensor is the base's own, so that `W + (value − base)` is the value: beside other edits, or
   * with a weight, the difference is added. Null where replacing was asked for.
   */
  readonly base: ValueRun | null
}

/** Whether an edit takes values from the base, which is then an input of the merge. */
export function readsBase(edit: Edit): boolean {
  return edit.kind === 'additive' ? edit.initial !== null : edit.kind !== 'dora' && edit.base !== null
}
