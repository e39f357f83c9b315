import { DTYPE_BITS, type Dtype } from './dtype.ts'
import { readHeaderJson, type HeaderEntry } from './header-json.ts'
import { SafetensorsError } from './safetensors-error.ts'

export { SafetensorsError, type SafetensorsErrorCode } from './safetensors-error.ts'

/** Largest header that the edge parses; an isolate has 128 MB in all. */
export const EDGE_HEADER_CAP = 1 << 20
/**
 * Largest header that the runner and the command line parse: 100,000 tensors with names of usual length. The reference's own
 * limit (100 MB; safetensors, MAX_HEADER_SIZE) would take more memory than a runner has to spare.
 */
export const RUNNER_HEADER_CAP = 16 << 20

const DTYPES = Object.keys(DTYPE_BITS) as Dtype[]

export interface TensorInfo {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** First byte, counted from the start of the data section. */
  readonly begin: number
  /** One past the last byte. */
  readonly end: number
}

export interface SafetensorsHeader {
  /** Where the data section starts in the file: 8 + length of the JSON. */
  readonly dataOffset: number
  /** In the order of their data. */
  readonly tensors: readonly TensorInfo[]
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Length in bytes of a file's header, JSON and 8-byte prefix together, from its first 8 bytes.
 * Refuses a header that does not fit the file or the cap.
 */
export function headerLength(first8: Uint8Array, fileSize: number, cap: number = RUNNER_HEADER_CAP): number {
  if (fileSize < 8 || first8.byteLength < 8) throw new SafetensorsError('truncated', `a safetensors file has at least 8 bytes, this one has ${Math.min(fileSize, first8.byteLength)}`)
  const n = new DataView(first8.buffer, first8.byteOffset, 8).getBigUint64(0, true)
  if (n > BigInt(cap)) throw new SafetensorsError('header-too-large', `the header claims ${n} bytes, the limit is ${cap}`)
  const length = 8 + Number(n)
  if (length > fileSize) throw new SafetensorsError('truncated', `the header ends at byte ${length}, the file at ${fileSize}`)
  return length
}

/**
 * Parses and validates the header of a safetensors file of `fileSize` bytes.
 * `bytes` are the first `headerLength(…)` bytes of the file; nothing else of it is needed.
 * The data section must be covered exactly: no hole, no overlap, nothing behind it.
 */
export function parseHeader(bytes: Uint8Array, fileSize: number, cap: number = RUNNER_HEADER_CAP): SafetensorsHeader {
  const dataOffset = headerLength(bytes, fileSize, cap)
  if (bytes.byteLength < dataOffset) throw new SafetensorsError('truncated', `the header has ${dataOffset} bytes, ${bytes.byteLength} are there`)
  const tensors: TensorInfo[] = []
  const metadata = readHeaderJson(bytes.subarray(8, dataOffset), (entry) => tensors.push(checkEntry(entry)))
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end || (comesBefore(a.name, b.name) ? -1 : 1))
  checkCoverage(tensors, fileSize - dataOffset)
  return { dataOffset, tensors, metadata }
}

function checkEntry({ name, dtype, shape, offsets }: HeaderEntry): TensorInfo {
  // One string for all of them, where each has brought its own.
  const known = DTYPES.find((one) => one === dtype)
  if (known === undefined) throw new SafetensorsError('unknown-dtype', `dtype ${JSON.stringify(dtype).slice(0, 50)} is not one of ${DTYPES.join(', ')}`, name)
  if (shape === null) throw new SafetensorsError('bad-shape', 'has no shape', name)
  const [begin, end] = offsets ?? []
  if (begin === undefined || end === undefined || begin > end) throw new SafetensorsError('bad-offsets', 'data_offsets must be [begin, end] with begin ≤ end', name)
  const length = byteLength(shape, known, name)
  if (end - begin !== length) throw new SafetensorsError('size-mismatch', `${known} ${JSON.stringify(shape)} takes ${length} bytes, data_offsets give ${end - begin}`, name)
  return { name, dtype: known, shape, begin, end }
}

/** Bytes of a tensor; throws where a product passes 2^53 or the bits do not fill whole bytes. */
function byteLength(shape: readonly number[], dtype: Dtype, tensor: string): number {
  // A zero anywhere makes the size zero, but the reference multiplies in order with a check, and so do we.
  let elements = 1
  for (const dimension of shape) {
    elements *= dimension
    if (!Number.isSafeInteger(elements)) throw new SafetensorsError('shape-overflow', `the product of ${JSON.stringify(shape)} passes 2^53`, tensor)
  }
  const bits = elements * DTYPE_BITS[dtype]
  if (!Number.isSafeInteger(bits)) throw new SafetensorsError('shape-overflow', `${dtype} ${JSON.stringify(shape)} passes 2^53 bits`, tensor)
  if (bits % 8 !== 0) throw new SafetensorsError('bad-shape', `${dtype} ${JSON.stringify(shape)} does not fill whole bytes`, tensor)
  return bits / 8
}

/** By code points, which is the order of UTF-8; that of strings puts U+E000 to U+FFFF behind what lies above. */
function comesBefore(a: string, b: string): boolean {
  let at = 0
  while (at < a.length && a.charCodeAt(at) === b.charCodeAt(at)) at++
  const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)]
  const isSurrogate = (unit: number) => unit >= 0xd800 && unit < 0xe000
  if (x >= 0xd800 && y >= 0xd800 && isSurrogate(x) !== isSurrogate(y)) return isSurrogate(y)
  return a.length === at || x < y
}

function checkCoverage(tensors: readonly TensorInfo[], dataLength: number): void {
  let at = 0
  for (const { name, begin, end } of tensors) {
    if (begin < at) throw new SafetensorsError('overlap', `starts at data byte ${begin}, inside the tensor before it (which ends at ${at})`, name)
    if (begin > at) throw new SafetensorsError('hole', `starts at data byte ${begin}, but the tensor before it ends at ${at}`, name)
    at = end
  }
  if (at > dataLength) throw new SafetensorsError('truncated', `the tensors need ${at} data bytes, the file has ${dataLength}`)
  if (at < dataLength) throw new SafetensorsError('trailing-bytes', `the tensors end at data byte ${at}, the file has ${dataLength}`)
}

/** Blocks of file systems, which share equal ones between files where these lie at the same place within a block. */
const BLOCK_BYTES = 4096

/**
 * The header (8-byte prefix and JSON) of a file that holds `tensors` in this order, without gaps.
 * Padded with spaces so that the data section starts at a multiple of 8, and at the same place within a block of 4096
 * bytes as `dataOffset` where that is a multiple of 8 too. Equal input gives equal bytes.
 */
export function writeHeader(tensors: readonly { name: string; dtype: Dtype; shape: readonly number[] }[], metadata: Readonly<Record<string, string>> = {}, dataOffset: number | null = null): Uint8Array {
  const entries: string[] = []
  if (Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1))))}`)
  let at = 0
  for (const { name, dtype, shape } of tensors) {
    const end = at + byteLength(shape, dtype, name)
    entries.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${at},${end}]}`)
    at = end
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`)
  const [unit, start] = dataOffset !== null && dataOffset % 8 === 0 ? [BLOCK_BYTES, dataOffset % BLOCK_BYTES] : [8, 0]
  const padded = Math.ceil((8 + json.byteLength - start) / unit) * unit + start - 8
  const header = new Uint8Array(8 + padded).fill(0x20, 8)
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true)
  header.set(json, 8)
  return header
}
