/** A range of one stored blob. A virtual file is a list of extents, in order. */
export interface Extent {
  /** SHA-256 of the blob, 64 hex digits. */
  readonly blob: string
  readonly offset: number
  readonly length: number
}

/** A range of a tensor that a merge changes. */
export interface TensorExtent {
  /** Its place among the tensors that the merge changes. */
  readonly tensor: number
  /** Where its bytes are kept; null where they are computed when asked for. */
  readonly blob: string | null
  readonly offset: number
  readonly length: number
}

export type FileExtent = Extent | TensorExtent
