/** What of a contribution decides its size: of a plan's, and of those that the core takes. */
interface Packed {
  readonly kind: string
  readonly rank?: number
  readonly axis?: 'rows' | 'columns'
}

/** Bytes of the contributions to rows × cols as the merge core packs them, about. Streamed values take none. */
export function packedBytes(rows: number, cols: number, contributions: readonly Packed[]): number {
  return contributions.reduce((sum, { rank = 0, axis }) => sum + 4 * rank * (rows + cols) + (axis === 'columns' ? 20 * cols : axis === 'rows' ? 4 * rows : 0), 0)
}
