import { CORE_DTYPES } from '../../gpu-runner/core/library.ts'
import type { FactorBytes, InitialFactorsSpec, MergeFigures } from '../../gpu-runner/core/core.ts'
import type { RandomAnalysis } from '../../gpu-runner/core/random-analysis.ts'
import type { RandomMerge } from '../../gpu-runner/core/random-merge.ts'

/** Writes what words.h reads. */
class Words {
  readonly #parts: Uint8Array[] = []

  word(...values: readonly number[]): void {
    this.#parts.push(new Uint8Array(BigInt64Array.from(values, BigInt).buffer))
  }

  real(value: number): void {
    this.#parts.push(new Uint8Array(Float64Array.of(value).buffer))
  }

  blob(bytes: Uint8Array): void {
    this.word(bytes.byteLength)
    this.#parts.push(bytes, new Uint8Array(-bytes.byteLength & 7))
  }

  matrix({ bytes, dtype, offset, strides }: FactorBytes): void {
    this.blob(bytes)
    this.word(CORE_DTYPES[dtype]!, offset, ...strides)
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

/** The words that replay.cpp reads. */
export function recordedMerges(merges: readonly RandomMerge[]): Buffer {
  const words = new Words()
  for (const { spec, reference, operands } of merges) {
    words.word(CORE_DTYPES[spec.dtype]!, spec.rows, spec.cols, spec.contributions.length)
    for (const one of spec.contributions) {
      words.word(['product', 'dora', 'dense', 'replace'].indexOf(one.kind))
      if (one.kind === 'product' || one.kind === 'dora') {
        words.matrix(one.left)
        words.matrix(one.right)
        words.word(one.rank)
        words.real(one.scale)
        if (one.kind === 'product') continue
        words.blob(one.magnitude.bytes)
        words.word(CORE_DTYPES[one.magnitude.dtype]!, ['rows', 'columns'].indexOf(one.axis))
        words.real(one.weight)
      } else {
        words.word(CORE_DTYPES[one.value]!, one.kind === 'replace' || one.base === null ? -1 : CORE_DTYPES[one.base]!)
        if (one.kind === 'dense') words.real(one.scale)
      }
    }
    words.blob(reference.w)
    words.word(operands.length)
    for (const operand of operands) words.blob(operand)
  }
  return words.bytes()
}

/** The words that replay-analysis.cpp reads. */
export function recordedAnalyses(analyses: readonly RandomAnalysis[]): Buffer {
  const words = new Words()
  for (const { spec, w, evolved, products } of analyses) {
    words.word(CORE_DTYPES[spec.baseDtype]!, CORE_DTYPES[spec.dtype]!, spec.rows, spec.cols, products.length)
    for (const { contribution: { left, right, rank, scale } } of products) {
      words.matrix(left)
      words.matrix(right)
      words.word(rank)
      words.real(scale)
    }
    const sampled = spec.sample?.rows ?? []
    words.word(sampled.length, ...sampled)
    words.blob(spec.sample?.bytes ?? new Uint8Array(0))
    words.blob(w.bytes)
    words.blob(evolved.bytes)
  }
  return words.bytes()
}

/** The words that replay-initial.cpp reads. */
export function recordedBases(bases: readonly InitialFactorsSpec[]): Buffer {
  const words = new Words()
  for (const { method, dtype, rows, cols, rank, base } of bases) {
    words.word(['pissa', 'olora'].indexOf(method), CORE_DTYPES[dtype]!, rows, cols, rank)
    words.blob(base)
  }
  return words.bytes()
}

function* blobs(bytes: Buffer, between: number): Generator<{ blob: Buffer; behind: Buffer }> {
  for (let at = 0; at < bytes.length; ) {
    const size = Number(bytes.readBigUInt64LE(at))
    const end = at + 8 + size + (-size & 7)
    yield { blob: bytes.subarray(at + 8, at + 8 + size), behind: bytes.subarray(end, end + between) }
    at = end + between
  }
}

/** What replay.cpp has written. */
export function replayedMerges(bytes: Buffer): { out: Buffer; figures: MergeFigures }[] {
  return Array.from(blobs(bytes, 32), ({ blob, behind }) => {
    const [patchNorm, realisedNorm, residualNorm, nonFinite] = [0, 8, 16, 24].map((offset) => behind.readDoubleLE(offset)) as [number, number, number, number]
    return { out: blob, figures: { patchNorm, realisedNorm, residualNorm, nonFinite } }
  })
}

/** What replay-analysis.cpp has written, the bits of the sums and of the matches; or replay-initial.cpp, the left factor and the right one. */
export function replayedPairs(bytes: Buffer): (readonly [Buffer, Buffer])[] {
  const all = Array.from(blobs(bytes, 0), ({ blob }) => blob)
  return Array.from({ length: all.length / 2 }, (_, i) => [all[2 * i]!, all[2 * i + 1]!] as const)
}
