/** A factor of a low-rank product: a 2-D adapter tensor, read as stored or transposed. */
export interface Factor {
  /** Name of the adapter tensor in adapter_model.safetensors. */
  readonly tensor: string
  readonly transpose: boolean
}

/**
 * `W += scale · (left @ right)`: left is (rows, rank), right is (rank, columns), where (rows, columns)
 * is the shape of the target tensor as stored on disk. Transposed layouts (`fan_in_fan_out`, embeddings)
 * swap and transpose the factors; fma(b, a) = fma(a, b), so the bits do not depend on it.
 */
export interface AdditiveEdit {
  readonly kind: 'additive'
  /** Name of the tensor in the target. */
  readonly target: string
  readonly rank: number
  /** `alpha/rank` or `alpha/√rank` in float64, before the patch's weight and the rounding to float32. */
  readonly scale: number
  readonly left: Factor
  readonly right: Factor
  /** Every adapter tensor that this edit consumes. */
  readonly consumes: readonly string[]
}

export type Edit = AdditiveEdit
