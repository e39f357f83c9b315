/**
 * Rule lora-f32/1 in plain JavaScript, for tests: written from docs/numerics.md, not from the C++. Slow.
 */
import type { MergeableDtype } from '../../patch/dtype.ts'

const view = new DataView(new ArrayBuffer(8))

/**
 * `a·b + c` of float32 values, rounded once to float32 (IEEE 754 fusedMultiplyAdd).
 *
 * The product of two float32 is exact in float64 (48 bits). The sum is not, so it is rounded to odd
 * (Boldo and Melquiond 2008): with 53 ≥ 24 + 2 bits the second rounding, to float32, is then the only one
 * that shows. Nothing over- or underflows in float64: float32 products lie between 2^-298 and 2^256.
 */
export function fma32(a: number, b: number, c: number): number {
  const product = a * b
  const sum = product + c
  if (!Number.isFinite(sum) || sum === 0) return Math.fround(sum)
  // Knuth's two-sum: sum + error is exactly product + c.
  const c2 = sum - product
  const error = product - (sum - c2) + (c - c2)
  if (error === 0) return Math.fround(sum)
  view.setFloat64(0, sum)
  const bits = view.getBigInt64(0)
  if ((bits & 1n) === 0n) {
    // Even and inexact: the odd neighbour on the error's side. Away from zero is one up in the bits.
    view.setBigInt64(0, error > 0 === sum > 0 ? bits + 1n : bits - 1n)
  }
  return Math.fround(view.getFloat64(0))
}

/** The same by exact integer arithmetic; finite arguments only. The check on the check. */
export function fma32Exact(a: number, b: number, c: number): number {
  const [ma, ea] = parts(a)
  const [mb, eb] = parts(b)
  const [mc, ec] = parts(c)
  const exponent = Math.min(ea + eb, ec)
  const sum = ((ma * mb) << BigInt(ea + eb - exponent)) + (mc << BigInt(ec - exponent))
  if (sum === 0n) {
    // IEEE 754 section 6.3: an exact zero is −0 only where both addends are −0 (nearest-even).
    const negativeProduct = Object.is(a, -0) || Object.is(b, -0) || a < 0 || b < 0 ? Object.is(a * b, -0) : false
    return ma * mb === 0n && mc === 0n && negativeProduct && Object.is(c, -0) ? -0 : 0
  }
  return roundToFloat32(sum, exponent)
}

/** Integer mantissa and exponent of a finite float32. */
function parts(value: number): [bigint, number] {
  view.setFloat32(0, value)
  const bits = view.getUint32(0)
  const biased = (bits >>> 23) & 255
  const mantissa = BigInt(biased === 0 ? bits & 0x7fffff : (bits & 0x7fffff) | 0x800000)
  return [bits >>> 31 ? -mantissa : mantissa, Math.max(biased, 1) - 150]
}

/** `mantissa · 2^exponent` rounded to nearest even. */
function roundToFloat32(mantissa: bigint, exponent: number): number {
  const negative = mantissa < 0n
  let magnitude = negative ? -mantissa : mantissa
  const length = magnitude.toString(2).length
  // The unit of the result: 24 bits kept, never below the smallest subnormal 2^-149.
  const unit = Math.max(exponent + length - 24, -149)
  const shift = unit - exponent
  if (shift > 0) {
    const half = 1n << BigInt(shift - 1)
    const dropped = magnitude & ((1n << BigInt(shift)) - 1n)
    magnitude >>= BigInt(shift)
    if (dropped > half || (dropped === half && (magnitude & 1n) === 1n)) magnitude += 1n
  } else {
    magnitude <<= BigInt(-shift)
  }
  const value = Number(magnitude) * 2 ** unit
  return Math.fround(negative ? -value : value)
}

/** Bytes of one element. */
export function widthOf(dtype: MergeableDtype): number {
  return dtype === 'F32' ? 4 : 2
}

/** An element's value, exactly. */
export function decode(dtype: MergeableDtype, bits: number): number {
  if (dtype === 'F32' || dtype === 'BF16') {
    view.setUint32(0, dtype === 'F32' ? bits : bits << 16)
    return view.getFloat32(0)
  }
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 0x3ff
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25)
}

/** Bits of the element nearest to a float32, ties to even; any NaN becomes the canonical one. */
export function encode(dtype: MergeableDtype, value: number): number {
  if (Number.isNaN(value)) return { F32: 0x7fc00000, F16: 0x7e00, BF16: 0x7fc0 }[dtype]
  view.setFloat32(0, value)
  const bits = view.getUint32(0)
  if (dtype === 'F32') return bits
  // Binary search over the magnitudes, which are ordered like their bits: slow, and obviously right.
  const sign = bits >>> 31 ? 0x8000 : 0
  const magnitude = Math.abs(value)
  const infinity = dtype === 'F16' ? 0x7c00 : 0x7f80
  let low = 0
  let high = infinity
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (decode(dtype, middle) <= magnitude) low = middle
    else high = middle
  }
  if (magnitude === Number.POSITIVE_INFINITY) return sign | infinity
  // For rounding, infinity stands where the next power of two would be.
  const below = decode(dtype, low)
  const above = high === infinity ? below + (below - decode(dtype, low - 1)) : decode(dtype, high)
  const down = magnitude - below
  const up = above - magnitude
  return sign | (down < up || (down === up && low % 2 === 0) ? low : high)
}

/** A matrix of element bits, as stored. */
export interface StoredMatrix {
  readonly dtype: MergeableDtype
  readonly bits: readonly number[]
  readonly transpose: boolean
}

export interface ReferenceAddend {
  readonly left: StoredMatrix
  readonly right: StoredMatrix
  readonly rank: number
  readonly scale: number
}

/** Output bits and figures of the whole tensor. */
export function mergeReference(dtype: MergeableDtype, rows: number, cols: number, w: readonly number[], addends: readonly ReferenceAddend[]) {
  const values = addends.map(({ left, right }) => ({
    left: left.bits.map((bits) => decode(left.dtype, bits)),
    right: right.bits.map((bits) => decode(right.dtype, bits)),
  }))
  const out: number[] = []
  const patch = new RowSums()
  const realised = new RowSums()
  const residual = new RowSums()
  let nonFinite = 0
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      let t = 0
      addends.forEach(({ left, right, rank, scale }, p) => {
        let d = 0
        for (let k = 0; k < rank; k++) {
          const b = values[p]!.left[left.transpose ? k * rows + i : i * rank + k]!
          const a = values[p]!.right[right.transpose ? j * rank + k : k * cols + j]!
          d = fma32(b, a, d)
        }
        t = Math.fround(t + Math.fround(scale * d))
      })
      const before = decode(dtype, w[i * cols + j]!)
      const bits = encode(dtype, Math.fround(before + t))
      const after = decode(dtype, bits)
      out.push(bits)
      const isFinite = Number.isFinite(after)
      if (!isFinite) nonFinite++
      patch.add(j, isFinite ? t : 0)
      const difference = Math.fround(after - before)
      realised.add(j, isFinite ? difference : 0)
      residual.add(j, isFinite ? Math.fround(difference - t) : 0)
    }
    patch.endRow()
    realised.endRow()
    residual.endRow()
  }
  return { out, patchNorm: patch.norm(), realisedNorm: realised.norm(), residualNorm: residual.norm(), nonFinite }
}

/** The order of summation of the figures: float32 over the four squares of a lane in 64 columns, float64 beyond. */
class RowSums {
  private total = 0
  private lanes = new Float64Array(16)
  private block = new Float32Array(16)

  add(column: number, value: number): void {
    if (column % 64 === 0) this.endBlock()
    this.block[column % 16] = fma32(value, value, this.block[column % 16]!)
  }

  private endBlock(): void {
    this.block.forEach((sum, lane) => (this.lanes[lane]! += sum))
    this.block.fill(0)
  }

  endRow(): void {
    this.endBlock()
    const halved = (lanes: Float64Array, count: number) => Float64Array.from({ length: count }, (_, l) => lanes[l]! + lanes[l + count]!)
    this.total += halved(halved(halved(halved(this.lanes, 8), 4), 2), 1)[0]!
    this.lanes.fill(0)
  }

  norm(): number {
    return Math.sqrt(this.total)
  }
}

/** Little-endian bytes of element bits. */
export function toBytes(dtype: MergeableDtype, bits: readonly number[]): Uint8Array {
  const width = widthOf(dtype)
  const bytes = new Uint8Array(bits.length * width)
  const to = new DataView(bytes.buffer)
  bits.forEach((value, i) => (width === 4 ? to.setUint32(i * 4, value, true) : to.setUint16(i * 2, value, true)))
  return bytes
}
