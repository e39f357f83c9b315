import type { ByteRange } from '../../ports/blob-store.ts'

/** `whole`: send everything, as if there were no Range header. `unsatisfiable`: 416. */
export type RangeAnswer = { readonly kind: 'whole' } | { readonly kind: 'unsatisfiable' } | { readonly kind: 'part'; readonly range: ByteRange }

const WHOLE: RangeAnswer = { kind: 'whole' }
const UNSATISFIABLE: RangeAnswer = { kind: 'unsatisfiable' }

/**
 * What a Range header asks of `size` bytes (RFC 9110 §14.1.2). A header that is malformed, in another unit, or names
 * several ranges is ignored, as §14.2 allows: the answer is then whole. A suffix of an empty file is whole too, since
 * no Content-Range can say "zero bytes".
 */
export function parseRange(header: string | undefined, size: number): RangeAnswer {
  const set = /^[ \t]*bytes=(.*)$/i.exec(header ?? '')
  if (set === null) return WHOLE
  // List syntax lets empty elements stand (§5.6.1.2).
  const specs = set[1]!.split(',').map((spec) => spec.replace(/^[ \t]+|[ \t]+$/g, '')).filter((spec) => spec !== '')
  const spec = /^(\d*)-(\d*)$/.exec(specs.length === 1 ? specs[0]! : '')
  if (spec === null) return WHOLE
  const [, first, last] = spec as unknown as [string, string, string]
  if (first === '') return last === '' ? WHOLE : suffix(BigInt(last), size)
  return between(BigInt(first), last === '' ? null : BigInt(last), size)
}

function suffix(length: bigint, size: number): RangeAnswer {
  if (length === 0n) return UNSATISFIABLE
  if (size === 0) return WHOLE
  const taken = length < BigInt(size) ? Number(length) : size
  return { kind: 'part', range: { offset: size - taken, length: taken } }
}

function between(first: bigint, last: bigint | null, size: number): RangeAnswer {
  if (last !== null && last < first) return WHOLE
  if (first >= BigInt(size)) return UNSATISFIABLE
  const offset = Number(first)
  const end = last === null || last >= BigInt(size) ? size - 1 : Number(last)
  return { kind: 'part', range: { offset, length: end - offset + 1 } }
}
