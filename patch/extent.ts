/** A range of one stored blob. A virtual file is a list of extents, in order. */
export interface Extent {
  /** SHA-256 of the blob, 64 hex digits. */
  readonly blob: string
  readonly offset: number
  readonly length: number
}
