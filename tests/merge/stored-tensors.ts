import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DTYPE_BITS, type Dtype } from '../../patch/dtype.ts'
import { headerLength, parseHeader } from '../../patch/safetensors.ts'

export interface StoredTensor {
  readonly dtype: Dtype
  readonly shape: readonly number[]
  readonly bytes: Buffer
}

export type StoredTensors = ReadonlyMap<string, StoredTensor>

/** Bits of the significand, with the hidden one, and the exponent of the smallest normal number. */
const FORMATS = {
  F64: [53, -1022], F32: [24, -126], F16: [11, -14], BF16: [8, -126], F8_E4M3: [4, -6], F8_E5M2: [3, -14],
} as const satisfies Partial<Record<Dtype, readonly [number, number]>>

export async function readFolder(folder: string): Promise<StoredTensors> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.safetensors'))
  return new Map((await Promise.all(files.map((file) => readTensors(join(folder, file))))).flatMap((tensors) => [...tensors]))
}

export async function readTensors(path: string): Promise<StoredTensors> {
  const file = await readFile(path)
  const header = parseHeader(file.subarray(0, headerLength(file.subarray(0, 8), file.length)), file.length)
  return new Map(header.tensors.map(({ name, dtype, shape, begin, end }) => [name, { dtype, shape, bytes: file.subarray(header.dataOffset + begin, header.dataOffset + end) }]))
}

/** The elements' values, exactly. */
export function valuesOf({ dtype, bytes }: StoredTensor): Float64Array {
  const width = DTYPE_BITS[dtype] / 8
  const values = new Float64Array(bytes.length / width)
  const read = readerOf(dtype, bytes)
  for (let at = 0; at < values.length; at += 1) values[at] = read(at * width)
  return values
}

function readerOf(dtype: Dtype, bytes: Buffer): (offset: number) => number {
  if (dtype === 'F64') return (offset) => bytes.readDoubleLE(offset)
  if (dtype === 'F32') return (offset) => bytes.readFloatLE(offset)
  if (dtype === 'F16') return (offset) => halfValue(bytes.readUInt16LE(offset))
  // The others are the upper halves of wider formats, but for E4M3, which has no infinities.
  if (dtype === 'F8_E5M2') return (offset) => halfValue(bytes.readUInt8(offset) << 8)
  if (dtype === 'F8_E4M3') return (offset) => e4m3Value(bytes.readUInt8(offset))
  if (dtype !== 'BF16') throw new Error(`no values of ${dtype}`)
  const word = Buffer.alloc(4)
  return (offset) => {
    word.writeUInt16LE(bytes.readUInt16LE(offset), 2)
    return word.readFloatLE(0)
  }
}

function halfValue(bits: number): number {
  const [sign, exponent, mantissa] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 0x3ff]
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25)
}

function e4m3Value(bits: number): number {
  const [sign, exponent, mantissa] = [bits & 0x80 ? -1 : 1, (bits >> 3) & 15, bits & 7]
  if (exponent === 15 && mantissa === 7) return Number.NaN
  return exponent === 0 ? sign * mantissa * 2 ** -9 : sign * (8 + mantissa) * 2 ** (exponent - 10)
}

/** The distance of representable numbers around a value. */
export function ulp(dtype: Dtype, value: number): number {
  const [bits, smallest] = formatOf(dtype)
  return 2 ** (Math.max(exponentOf(value), smallest) - bits + 1)
}

function formatOf(dtype: Dtype): readonly [number, number] {
  const format = (FORMATS as Partial<Record<Dtype, readonly [number, number]>>)[dtype]
  if (format === undefined) throw new Error(`no format of ${dtype}`)
  return format
}

const word = new DataView(new ArrayBuffer(8))

/** The largest k with 2^k ≤ |value|; −1023 for what float64 keeps as subnormal, and for zero. */
function exponentOf(value: number): number {
  word.setFloat64(0, value)
  return ((word.getUint16(0) >> 4) & 0x7ff) - 1023
}

export function differingElements(a: StoredTensor, b: StoredTensor): number {
  const width = DTYPE_BITS[a.dtype] / 8
  let count = 0
  for (let at = 0; at < a.bytes.length; at += width) if (a.bytes.compare(b.bytes, at, at + width, at, at + width) !== 0) count += 1
  return count
}
