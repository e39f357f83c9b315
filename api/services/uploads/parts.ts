/** Files up to this size are one PUT, pinned to their checksum; larger ones are parts of at least this size. */
export const PART_BYTES = 64 * 1024 * 1024
/** As many as S3 takes. */
export const MAX_PARTS = 10_000
const MIB = 1024 * 1024

export interface PartRange { number: number; offset: number; length: number }

/** The parts of a file: all of equal size but the last, as R2 wants them. A file of no bytes is one empty part. */
export function partsOf(size: number): PartRange[] {
  const length = Math.max(PART_BYTES, Math.ceil(size / MAX_PARTS / MIB) * MIB)
  const count = Math.max(1, Math.ceil(size / length))
  return Array.from({ length: count }, (_, i) => ({ number: i + 1, offset: i * length, length: Math.min(length, size - i * length) }))
}
