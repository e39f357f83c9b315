/**
 * The rules in plain JavaScript, for tests: written from docs/numerics.md, not from the C++. Slow.
 */
import { DTYPE_BITS, type TargetDtype } from '../../patch/dtype.ts'

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

/** The formats narrower than float32: bits of the mantissa, bias of the exponent, the first magnitude that is not finite, and the NaN that is written. */
const NARROW = {
  F16: { mantissa: 10, bias: 15, end: 0x7c00, nan: 0x7e00, sign: 0x8000 },
  BF16: { mantissa: 7, bias: 127, end: 0x7f80, nan: 0x7fc0, sign: 0x8000 },
  F8_E5M2: { mantissa: 2, bias: 15, end: 0x7c, nan: 0x7e, sign: 0x80 },
  F8_E4M3: { mantissa: 3, bias: 7, end: 0x7f, nan: 0x7f, sign: 0x80 },
} as const
export type NarrowDtype = keyof typeof NARROW

const decoded = new Map<NarrowDtype, Float64Array>()

/** An element's value, exactly. */
export function decode(dtype: NarrowDtype, bits: number): number {
  let values = decoded.get(dtype)
  if (values === undefined) {
    values = Float64Array.from({ length: NARROW[dtype].sign * 2 }, (_, every) => valueOf(dtype, every))
    decoded.set(dtype, values)
  }
  return values[bits]!
}

function valueOf(dtype: NarrowDtype, bits: number): number {
  const { mantissa, bias, end, sign } = NARROW[dtype]
  const magnitude = bits & (sign - 1)
  const negative = bits & sign ? -1 : 1
  if (magnitude >= end) return magnitude === end && dtype !== 'F8_E4M3' ? negative * Number.POSITIVE_INFINITY : Number.NaN
  const exponent = magnitude >> mantissa
  const fraction = magnitude & ((1 << mantissa) - 1)
  return negative * (exponent === 0 ? fraction : fraction + (1 << mantissa)) * 2 ** (Math.max(exponent, 1) - bias - mantissa)
}

/** Bits of the element nearest to a number, ties to even; any NaN becomes the canonical one. */
export function encode(dtype: NarrowDtype, value: number): number {
  const { end, nan, sign } = NARROW[dtype]
  if (Number.isNaN(value)) return nan
  const negative = value < 0 || Object.is(value, -0) ? sign : 0
  // Binary search over the magnitudes, which are ordered like their bits: slow, and obviously right.
  const magnitude = Math.abs(value)
  let low = 0
  let high: number = end
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (decode(dtype, middle) <= magnitude) low = middle
    else high = middle
  }
  // For rounding, what is not finite stands where the next finite value would be.
  const below = decode(dtype, low)
  const above = high === end ? below + (below - decode(dtype, low - 1)) : decode(dtype, high)
  const down = magnitude - below
  const up = above - magnitude
  const rounded = down < up || (down === up && low % 2 === 0) ? low : high
  if (rounded < end) return negative | rounded
  return dtype === 'F8_E4M3' ? nan : negative | end
}

export function widthOf(dtype: TargetDtype): number {
  return DTYPE_BITS[dtype] / 8
}

/** Numbers as stored, little-endian. */
export interface Stored {
  readonly dtype: TargetDtype
  readonly bytes: Uint8Array
}

/** Element `index`, exactly. */
export function element({ dtype, bytes }: Stored, index: number): number {
  const stored = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (dtype === 'F64') return stored.getFloat64(index * 8, true)
  if (dtype === 'F32') return stored.getFloat32(index * 4, true)
  return decode(dtype, widthOf(dtype) === 2 ? stored.getUint16(index * 2, true) : stored.getUint8(index))
}

/** Writes element `index`, rounded once. */
export function setElement({ dtype, bytes }: Stored, index: number, value: number): void {
  const stored = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (dtype === 'F64') {
    if (Number.isNaN(value)) stored.setBigUint64(index * 8, 0x7ff8000000000000n, true)
    else stored.setFloat64(index * 8, value, true)
  } else if (dtype === 'F32') {
    if (Number.isNaN(value)) stored.setUint32(index * 4, 0x7fc00000, true)
    else stored.setFloat32(index * 4, value, true)
  } else if (widthOf(dtype) === 2) {
    stored.setUint16(index * 2, encode(dtype, value), true)
  } else {
    stored.setUint8(index, encode(dtype, value))
  }
}

/** A matrix within stored numbers: (i, j) at `offset + i·strides[0] + j·strides[1]`. */
export interface StoredMatrix extends Stored {
  readonly offset: number
  readonly strides: readonly [number, number]
}

interface ReferenceProduct {
  readonly left: StoredMatrix
  readonly right: StoredMatrix
  readonly rank: number
  readonly scale: number
}

export type ReferenceContribution =
  | (ReferenceProduct & { readonly kind: 'product' })
  | (ReferenceProduct & { readonly kind: 'dora'; readonly magnitude: Stored; readonly axis: 'rows' | 'columns'; readonly weight: number })
  | { readonly kind: 'dense'; readonly scale: number; readonly value: Stored; readonly base: Stored | null }
  | { readonly kind: 'replace'; readonly value: Stored }

export interface ReferenceMerge {
  readonly dtype: TargetDtype
  readonly rows: number
  readonly cols: number
  readonly w: Uint8Array
  readonly contributions: readonly ReferenceContribution[]
}

/** Output bytes and figures of the whole tensor. */
export function mergeReference({ dtype, rows, cols, w: bytes, contributions }: ReferenceMerge) {
  const round = rounding(dtype)
  const w = { dtype, bytes }
  const out = { dtype, bytes: new Uint8Array(bytes.length) }
  const scaled = contributions.map((one) => ('rank' in one ? productElements(one, rows, cols) : []))
  const factors = contributions.map((one, p) => (one.kind === 'dora' ? doraFactors(one, { w, rows, cols, product: scaled[p]! }) : []))
  const [patch, realised, residual] = [new RowSums(dtype), new RowSums(dtype), new RowSums(dtype)]
  let nonFinite = 0
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      const at = i * cols + j
      const before = element(w, at)
      let t = 0
      let y: number | null = null
      contributions.forEach((one, p) => {
        if (one.kind === 'product') {
          t = Math.fround(t + scaled[p]![at]!)
        } else if (one.kind === 'dora') {
          const factor = factors[p]![one.axis === 'rows' ? i : j]!
          const normalised = round(factor * round(before + (0 + scaled[p]![at]!)))
          const added = round(normalised - before)
          if (contributions.length === 1 && one.weight === 1) [y, t] = [normalised, Math.fround(added)]
          else t = Math.fround(t + Math.fround(one.weight * added))
        } else if (one.kind === 'dense') {
          const difference = one.base === null ? element(one.value, at) : element(one.value, at) - element(one.base, at)
          t = Math.fround(t + Math.fround(one.scale * difference))
        } else {
          y = element(one.value, at)
          t = Math.fround(y - before)
        }
      })
      setElement(out, at, y ?? round(before + t))
      const after = element(out, at)
      const isFinite = Number.isFinite(after)
      if (!isFinite) nonFinite++
      const difference = round(after - before)
      patch.add(j, isFinite ? t : 0)
      realised.add(j, isFinite ? difference : 0)
      residual.add(j, isFinite ? round(difference - t) : 0)
    }
    for (const sums of [patch, realised, residual]) sums.endRow()
  }
  return { out: out.bytes, patchNorm: patch.norm(), realisedNorm: realised.norm(), residualNorm: residual.norm(), nonFinite }
}

/** What the operations on W round to: float64 for F64, float32 for the rest. */
function rounding(dtype: TargetDtype): (value: number) => number {
  return dtype === 'F64' ? (value) => value : Math.fround
}

/** `fround(scale · d)` of every element. */
function productElements({ left, right, rank, scale }: ReferenceProduct, rows: number, cols: number): number[] {
  const at = ({ offset, strides, ...stored }: StoredMatrix, i: number, j: number) => element(stored, offset + i * strides[0] + j * strides[1])
  const b = Array.from({ length: rows * rank }, (_, n) => at(left, Math.floor(n / rank), n % rank))
  const a = Array.from({ length: rank * cols }, (_, n) => at(right, Math.floor(n / cols), n % cols))
  return Array.from({ length: rows * cols }, (_, n) => {
    const [i, j] = [Math.floor(n / cols), n % cols]
    let d = 0
    for (let k = 0; k < rank; k++) d = fma32(b[i * rank + k]!, a[k * cols + j]!, d)
    return Math.fround(scale * d)
  })
}

/** m/n of every row or column. */
function doraFactors(
  { magnitude, axis }: Extract<ReferenceContribution, { kind: 'dora' }>,
  { w, rows, cols, product }: { w: Stored; rows: number; cols: number; product: readonly number[] },
): number[] {
  const round = rounding(w.dtype)
  const square = (i: number, j: number) => round(element(w, i * cols + j) + (0 + product[i * cols + j]!)) ** 2
  return Array.from({ length: axis === 'rows' ? rows : cols }, (_, index) => {
    let squares = 0
    if (axis === 'rows') {
      const lanes = new Float64Array(16)
      for (let j = 0; j < cols; j++) lanes[j % 16]! += square(index, j)
      squares = addLanes(lanes)
    } else {
      for (let i = 0; i < rows; i++) squares += square(i, index)
    }
    const norm = Math.sqrt(squares)
    return norm > 0 && Number.isFinite(norm) ? round(element(magnitude, index) / norm) : Number.NaN
  })
}

function addLanes(lanes: Float64Array): number {
  for (let count = 8; count >= 1; count /= 2) {
    for (let l = 0; l < count; l++) lanes[l]! += lanes[l + count]!
  }
  return lanes[0]!
}

/** The order of summation of the figures: a block is 64 columns in 16 lanes, float32 but for F64; rows are float64. */
class RowSums {
  private total = 0
  private lanes = new Float64Array(16)
  private readonly block: Float32Array | Float64Array
  private readonly addSquare: (value: number, sum: number) => number

  constructor(dtype: TargetDtype) {
    this.block = dtype === 'F64' ? new Float64Array(16) : new Float32Array(16)
    this.addSquare = dtype === 'F64' ? (value, sum) => sum + value * value : (value, sum) => fma32(value, value, sum)
  }

  add(column: number, value: number): void {
    if (column % 64 === 0) this.endBlock()
    this.block[column % 16] = this.addSquare(value, this.block[column % 16]!)
  }

  private endBlock(): void {
    this.block.forEach((sum: number, lane: number) => (this.lanes[lane]! += sum))
    this.block.fill(0)
  }

  endRow(): void {
    this.endBlock()
    this.total += addLanes(this.lanes)
    this.lanes.fill(0)
  }

  norm(): number {
    return Math.sqrt(this.total)
  }
}

/** Little-endian bytes of element bits. */
export function toBytes(dtype: NarrowDtype | 'F32', bits: readonly number[]): Uint8Array {
  const width = widthOf(dtype)
  const bytes = Buffer.alloc(bits.length * width)
  bits.forEach((value, i) => bytes.writeUIntLE(value, i * width, width))
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}
