import { CORE_DTYPES } from '../../gpu-runner/core/library.ts'
import type { FactorBytes, MergeFigures } from '../../gpu-runner/core/core.ts'
import type { RandomMerge } from '../../gpu-runner/core/random-merge.ts'

/** The words that replay.cpp reads. */
export function recorded(merges: readonly RandomMerge[]): Buffer {
  const parts: Buffer[] = []
  const word = (value: number) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(value))
    parts.push(bytes)
  }
  const real = (value: number) => {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleLE(value)
    parts.push(bytes)
  }
  const blob = (bytes: Uint8Array) => {
    word(bytes.byteLength)
    parts.push(Buffer.from(bytes), Buffer.alloc(-bytes.byteLength & 7))
  }
  const matrix = ({ bytes, dtype, offset, strides }: FactorBytes) => {
    blob(bytes)
    for (const value of [CORE_DTYPES[dtype]!, offset, ...strides]) word(value)
  }
  for (const { spec, reference, operands } of merges) {
    for (const value of [CORE_DTYPES[spec.dtype]!, spec.rows, spec.cols, spec.contributions.length]) word(value)
    for (const one of spec.contributions) {
      word(['product', 'dora', 'dense', 'replace'].indexOf(one.kind))
      if (one.kind === 'product' || one.kind === 'dora') {
        matrix(one.left)
        matrix(one.right)
        word(one.rank)
        real(one.scale)
        if (one.kind === 'product') continue
        blob(one.magnitude.bytes)
        word(CORE_DTYPES[one.magnitude.dtype]!)
        word(['rows', 'columns'].indexOf(one.axis))
        real(one.weight)
      } else {
        word(CORE_DTYPES[one.value]!)
        word(one.kind === 'replace' || one.base === null ? -1 : CORE_DTYPES[one.base]!)
        if (one.kind === 'dense') real(one.scale)
      }
    }
    blob(reference.w)
    word(operands.length)
    operands.forEach(blob)
  }
  return Buffer.concat(parts)
}

/** What replay.cpp has written. */
export function replayed(bytes: Buffer): { out: Buffer; figures: MergeFigures }[] {
  const results: { out: Buffer; figures: MergeFigures }[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = Number(bytes.readBigUInt64LE(at))
    const out = bytes.subarray(at + 8, at + 8 + size)
    at += 8 + size + (-size & 7)
    const [patchNorm, realisedNorm, residualNorm, nonFinite] = [0, 8, 16, 24].map((offset) => bytes.readDoubleLE(at + offset)) as [number, number, number, number]
    results.push({ out, figures: { patchNorm, realisedNorm, residualNorm, nonFinite } })
    at += 32
  }
  return results
}
