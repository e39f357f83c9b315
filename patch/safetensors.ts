import { DTYPE_BITS, isDtype, type Dtype } from './dtype.ts'
import { DuplicateKeyError, parseStrictJson, type JsonValue } from './strict-json.ts'

/** Largest header that the edge parses; an isolate has 128 MB in all. */
export const EDGE_HEADER_CAP = 1 << 20
/** Largest header that the runner and the command line parse; the reference's own limit (safetensors, MAX_HEADER_SIZE). */
export const RUNNER_HEADER_CAP = 100_000_000
/** More tensors than any real model has: guards the quadratic and the merely slow. */
export const TENSOR_COUNT_CAP = 100_000
const RANK_CAP = 32

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

export type SafetensorsErrorCode =
  | 'truncated' | 'header-too-large' | 'not-json' | 'bad-utf8' | 'duplicate-key' | 'bad-structure' | 'bad-metadata'
  | 'too-many-tensors' | 'bad-name' | 'unknown-dtype' | 'bad-shape' | 'shape-overflow' | 'bad-offsets' | 'size-mismatch' | 'overlap' | 'hole' | 'trailing-bytes'

/** A file that is not a safetensors file, or not a sound one: what is wrong and at which tensor. */
export class SafetensorsError extends Error {
  readonly code: SafetensorsErrorCode
  readonly tensor: string | undefined
  constructor(code: SafetensorsErrorCode, message: string, tensor?: string) {
    super(tensor === undefined ? message : `tensor ${JSON.stringify(tensor.slice(0, 200))}: ${message}`)
    this.name = 'SafetensorsError'
    this.code = code
    this.tensor = tensor
  }
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
  const root = parseRoot(bytes.subarray(8, dataOffset))
  const names = Object.keys(root).filter((name) => name !== '__metadata__')
  if (names.length > TENSOR_COUNT_CAP) throw new SafetensorsError('too-many-tensors', `the header names ${names.length} tensors, the limit is ${TENSOR_COUNT_CAP}`)
  const metadata = parseMetadata(Object.hasOwn(root, '__metadata__') ? root['__metadata__'] : undefined)
  const tensors = names.map((name) => parseTensor(name, root[name]!))
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end || (a.name < b.name ? -1 : 1))
  checkCoverage(tensors, fileSize - dataOffset)
  return { dataOffset, tensors, metadata }
}

function parseRoot(json: Uint8Array): Record<string, JsonValue> {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json)
  } catch {
    throw new SafetensorsError('bad-utf8', 'the header is not valid UTF-8')
  }
  if (!text.startsWith('{')) throw new SafetensorsError('not-json', `the header must start with '{', it starts with ${JSON.stringify(text.slice(0, 1))}`)
  let root: JsonValue
  try {
    root = parseStrictJson(text)
  } catch (error) {
    if (error instanceof DuplicateKeyError) throw new SafetensorsError('duplicate-key', error.message)
    throw new SafetensorsError('not-json', 'the header is not valid JSON')
  }
  return root as Record<string, JsonValue>
}

function parseMetadata(value: JsonValue | undefined): Record<string, string> {
  if (value === undefined || value === null) return {}
  if (!isObject(value)) throw new SafetensorsError('bad-metadata', '__metadata__ must be an object of strings')
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry !== 'string') throw new SafetensorsError('bad-metadata', `__metadata__ entry ${JSON.stringify(key.slice(0, 200))} must be a string`)
  }
  return value as Record<string, string>
}

function parseTensor(name: string, value: JsonValue): TensorInfo {
  if (name === '' || name.length > 1024) throw new SafetensorsError('bad-name', 'a tensor name must have 1 to 1024 characters', name)
  if (!isObject(value)) throw new SafetensorsError('bad-structure', 'must be an object with dtype, shape and data_offsets', name)
  const unknown = Object.keys(value).find((key) => key !== 'dtype' && key !== 'shape' && key !== 'data_offsets')
  if (unknown !== undefined) throw new SafetensorsError('bad-structure', `has the unknown key ${JSON.stringify(unknown.slice(0, 200))}`, name)
  const { dtype, shape, data_offsets: offsets } = value
  if (typeof dtype !== 'string' || !isDtype(dtype)) throw new SafetensorsError('unknown-dtype', `dtype ${JSON.stringify(dtype ?? null)?.slice(0, 50)} is not one of ${Object.keys(DTYPE_BITS).join(', ')}`, name)
  const dimensions = parseIntegers(shape, 'bad-shape', 'shape', name)
  if (dimensions.length > RANK_CAP) throw new SafetensorsError('bad-shape', `has ${dimensions.length} dimensions, the limit is ${RANK_CAP}`, name)
  const range = parseIntegers(offsets, 'bad-offsets', 'data_offsets', name)
  if (range.length !== 2 || range[0]! > range[1]!) throw new SafetensorsError('bad-offsets', 'data_offsets must be [begin, end] with begin ≤ end', name)
  const [begin, end] = range as [number, number]
  const length = byteLength(dimensions, dtype, name)
  if (end - begin !== length) throw new SafetensorsError('size-mismatch', `${dtype} ${JSON.stringify(dimensions)} takes ${length} bytes, data_offsets give ${end - begin}`, name)
  return { name, dtype, shape: dimensions, begin, end }
}

function parseIntegers(value: JsonValue | undefined, code: SafetensorsErrorCode, what: string, tensor: string): number[] {
  const sound = Array.isArray(value) && value.every((entry) => Number.isSafeInteger(entry) && (entry as number) >= 0 && !Object.is(entry, -0))
  if (!sound) throw new SafetensorsError(code, `${what} must be an array of integers from 0 to 2^53-1`, tensor)
  return value as number[]
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

function isObject(value: JsonValue | undefined): value is { [key: string]: JsonValue } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * The header (8-byte prefix and JSON) of a file that holds `tensors` in this order, without gaps.
 * Padded with spaces so that the data section starts at a multiple of 8. Equal input gives equal bytes.
 */
export function writeHeader(tensors: readonly { name: string; dtype: Dtype; shape: readonly number[] }[], metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  const entries: string[] = []
  if (Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1))))}`)
  let at = 0
  for (const { name, dtype, shape } of tensors) {
    const end = at + byteLength(shape, dtype, name)
    entries.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${at},${end}]}`)
    at = end
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`)
  const padded = Math.ceil(json.byteLength / 8) * 8
  const header = new Uint8Array(8 + padded).fill(0x20, 8)
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true)
  header.set(json, 8)
  return header
}
