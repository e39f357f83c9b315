import koffi, { type LibraryHandle } from 'koffi'
import type { Dtype } from '../../patch/dtype.ts'
import type { TensorInfo } from '../../patch/safetensors.ts'
import { tameAllocator } from '../allocator.ts'
import { buildCore } from './build.ts'

/** Numbers of portllm_core.h. */
export const PATHS = { scalar: 0, avx2: 1, avx512: 2, avx512bf16: 3, neon: 4, cuda: 16 } as const
export type CorePath = keyof typeof PATHS

export const CORE_DTYPES: Partial<Record<Dtype, number>> = {
  F32: 0, F16: 1, BF16: 2, F64: 3, F8_E4M3: 4, F8_E5M2: 5, F8_E8M0: 6,
}

const STATUSES = ['ok', 'invalid', 'unsupported', 'nonfinite', 'memory', 'io', 'cancelled', 'undetermined', 'device'] as const
export type CoreStatus = Exclude<(typeof STATUSES)[number], 'ok'>

/** A refusal of the core: `status` is the kind, `message` the sentence that it gave. */
export class CoreError extends Error {
  readonly status: CoreStatus

  constructor(status: CoreStatus, message: string) {
    super(message)
    this.name = 'CoreError'
    this.status = status
  }
}

/** Address of a `portllm_tensor`. */
export type TensorHandle = bigint
/** Address of a `portllm_source`. */
export type SourceHandle = bigint

const MESSAGE_SIZE = 512
/** Of a header's description in JSON, given at a time: most headers are shorter. */
const HEADER_PART_BYTES = 2 ** 20
/** Any one tensor's is shorter. */
const SHORT_HEADER_PART_BYTES = 2 ** 14
/** Counted sooner than a thread is asked. */
const COUNTED_AT_ONCE = 2 ** 16

/** The C functions, typed; each throws or rejects with CoreError. Memory passed in is kept alive until the call ends. */
export interface Library {
  version(): string
  supports(path: CorePath): boolean
  /** Whether `path` can merge this tensor: every path of the processor can. */
  computes(tensor: TensorHandle, path: CorePath): boolean
  /** Starts the CUDA helper, or starts it anew, and names its GPUs. */
  startCuda(helper: string): Promise<string>
  createTensor(dtype: number, rows: number, cols: number): TensorHandle
  addProduct(tensor: TensorHandle, product: NativeProduct): void
  addDora(tensor: TensorHandle, product: NativeProduct, magnitude: NativeVector, axis: number, weight: number): void
  /** `base` is −1 where the value is the difference itself. */
  addDense(tensor: TensorHandle, value: number, base: number, scale: number): void
  addReplace(tensor: TensorHandle, value: number): void
  /** Whether `measure` has to see all rows, in order, before the first merge. */
  measures(tensor: TensorHandle): boolean
  measure(tensor: TensorHandle, path: CorePath, threads: number, firstRow: number, rowCount: number, w: Uint8Array): Promise<void>
  merge(tensor: TensorHandle, path: CorePath, threads: number, figures: FiguresKept, firstRow: number, rowCount: number, w: Uint8Array, out: Uint8Array, operands?: readonly Uint8Array[]): Promise<void>
  /** The same by the calling thread, W being read from byte `offset` of the open file. */
  mergeFile(tensor: TensorHandle, path: CorePath, figures: FiguresKept, firstRow: number, rowCount: number, file: number, offset: number, out: Uint8Array, operands?: readonly Uint8Array[]): Promise<void>
  figures(tensor: TensorHandle): { patchNorm: number; realisedNorm: number; residualNorm: number; nonFinite: number }
  free(tensor: TensorHandle): void
  countNonFinite(bytes: Uint8Array, dtype: number): Promise<number>
  initialFactors(method: number, base: NativeVector, rows: number, cols: number, rank: number, threads: number, left: Float32Array, right: Float32Array): Promise<void>
  /** See Core. */
  readHeader(bytes: Uint8Array, fileSize: number): AsyncGenerator<readonly TensorInfo[], void, undefined>
  openSource(file: number): SourceHandle
  freeSource(source: SourceHandle): void
  /** `operands`: two 64-bit words each, as portllm_operand; `control`: as many as portllm_control has. */
  writeSegments(outputs: readonly Output[], operands: readonly bigint[], path: CorePath, threads: number, figures: FiguresKept, control: BigUint64Array): Promise<void>
  copyMemory(out: Uint8Array, from: Uint8Array, threads: number): Promise<void>
  fmaRate(path: CorePath, threads: number): Promise<number>
}

/** Numbers of a stored tensor, `dtype` being one of CORE_DTYPES. */
export interface NativeVector {
  readonly bytes: Uint8Array
  readonly dtype: number
}

/** A portllm_matrix: (i, j) lies at `offset + i·strides[0] + j·strides[1]`, in elements. */
export interface NativeMatrix extends NativeVector {
  readonly offset: number
  readonly strides: readonly [number, number]
}

export interface NativeProduct {
  readonly left: NativeMatrix
  readonly right: NativeMatrix
  readonly rank: number
  readonly scale: number
}

/** What a merge keeps for its figures: the norms cost time, the count of outputs that are not finite does not. */
export type FiguresKept = 'none' | 'count' | 'all'
const KEPT = { none: 0, all: 1, count: 2 } as const

/** What is written into one open file. */
export interface Output {
  readonly source: SourceHandle
  readonly destination: number
  /** Six 64-bit words each, as portllm_segment. */
  readonly segments: readonly bigint[]
}

/** Words of portllm_control. */
export const CONTROL = { cancel: 0, bytesDone: 1, errorNumber: 2, errorOutput: 3, read: 4, kernel: 5, write: 6, copy: 7, bytesCloned: 8 } as const
export const CONTROL_WORDS = 9

let opened: Promise<Library> | undefined

/** Loads the shared library once per process, compiling it first where needed. From then on the process keeps no large buffers that are freed. */
export function openLibrary(): Promise<Library> {
  opened ??= buildCore().then((file) => {
    tameAllocator()
    return bind(file)
  })
  opened.catch(() => (opened = undefined))
  return opened
}

function bind(file: string): Library {
  const handle = koffi.load(file)
  const tensorPointer = koffi.pointer(koffi.opaque())
  const sourcePointer = koffi.pointer(koffi.opaque())
  const memory = 'void *'
  const matrix = koffi.pointer(koffi.struct({ bytes: memory, size: 'uint64_t', offset: 'uint64_t', row_stride: 'uint64_t', col_stride: 'uint64_t', dtype: 'int32_t' }))
  const bytes = koffi.pointer(koffi.struct({ bytes: memory, size: 'uint64_t' }))
  const failing = (name: string, args: readonly unknown[]) => handle.func(name, 'int32_t', [...(args as string[]), memory, 'size_t'])

  const version = handle.func('portllm_version', 'str', [])
  const supported = handle.func('portllm_path_supported', 'int32_t', ['int32_t'])
  const computes = handle.func('portllm_tensor_supported', 'int32_t', [tensorPointer, 'int32_t'])
  const startCuda = failing('portllm_cuda_start', ['str', memory, 'size_t'])
  const create = failing('portllm_tensor_create', ['int32_t', 'uint64_t', 'uint64_t', koffi.out(koffi.pointer(tensorPointer))])
  const addProduct = failing('portllm_tensor_add_product', [tensorPointer, matrix, matrix, 'uint64_t', 'float'])
  const addDora = failing('portllm_tensor_add_dora', [tensorPointer, matrix, matrix, 'uint64_t', 'float', memory, 'uint64_t', 'int32_t', 'int32_t', 'double'])
  const addDense = failing('portllm_tensor_add_dense', [tensorPointer, 'int32_t', 'int32_t', 'double'])
  const addReplace = failing('portllm_tensor_add_replace', [tensorPointer, 'int32_t'])
  const measures = handle.func('portllm_tensor_measures', 'int32_t', [tensorPointer])
  const measure = failing('portllm_tensor_measure', [tensorPointer, 'int32_t', 'uint32_t', 'uint64_t', 'uint64_t', memory, 'uint64_t'])
  const merge = failing('portllm_tensor_merge', [tensorPointer, 'int32_t', 'uint32_t', 'int32_t', 'uint64_t', 'uint64_t', memory, 'uint64_t', memory, 'uint64_t', bytes, 'uint64_t'])
  const mergeFile = failing('portllm_tensor_merge_file', [tensorPointer, 'int32_t', 'int32_t', 'uint64_t', 'uint64_t', 'int32_t', 'uint64_t', memory, 'uint64_t', bytes, 'uint64_t'])
  const figures = failing('portllm_tensor_figures', [tensorPointer, memory])
  const free = handle.func('portllm_tensor_free', 'void', [tensorPointer])
  const count = failing('portllm_count_non_finite', [memory, 'uint64_t', 'int32_t', memory])
  const initial = failing('portllm_initial_factors', ['int32_t', memory, 'uint64_t', 'int32_t', 'uint64_t', 'uint64_t', 'uint64_t', 'uint32_t', memory, 'uint64_t', memory, 'uint64_t'])
  const header = failing('portllm_read_header', [memory, 'uint64_t', 'uint64_t', 'uint64_t', memory, 'uint64_t', memory])
  const sourceOpen = failing('portllm_source_open', ['int32_t', koffi.out(koffi.pointer(sourcePointer))])
  const sourceFree = handle.func('portllm_source_free', 'void', [sourcePointer])
  const write = failing('portllm_write_segments', [memory, 'uint64_t', memory, 'uint64_t', 'int32_t', 'uint32_t', 'int32_t', memory])
  const copy = handle.func('portllm_copy_memory', 'void', [memory, memory, 'uint64_t', 'uint32_t'])
  const fmaRate = handle.func('portllm_fma_rate', 'double', ['int32_t', 'uint32_t'])

  return {
    version: () => version(),
    supports: (path) => supported(PATHS[path]) === 1,
    computes: (tensor, path) => computes(tensor, PATHS[path]) === 1,
    async startCuda(helper) {
      const devices = Buffer.alloc(MESSAGE_SIZE)
      await call(startCuda, [helper, devices, MESSAGE_SIZE])
      return devices.toString('utf8', 0, devices.indexOf(0))
    },
    createTensor(dtype, rows, cols) {
      const made: [TensorHandle | null] = [null]
      callNow(create, [dtype, rows, cols, made])
      return made[0]!
    },
    addProduct: (tensor, { left, right, rank, scale }) => callNow(addProduct, [tensor, nativeMatrix(left), nativeMatrix(right), rank, scale]),
    addDora: (tensor, { left, right, rank, scale }, magnitude, axis, weight) =>
      callNow(addDora, [tensor, nativeMatrix(left), nativeMatrix(right), rank, scale, magnitude.bytes, magnitude.bytes.byteLength, magnitude.dtype, axis, weight]),
    addDense: (tensor, value, base, scale) => callNow(addDense, [tensor, value, base, scale]),
    addReplace: (tensor, value) => callNow(addReplace, [tensor, value]),
    measures: (tensor) => measures(tensor) === 1,
    measure: (tensor, path, threads, firstRow, rowCount, w) => call(measure, [tensor, PATHS[path], threads, firstRow, rowCount, w, w.byteLength]),
    merge: (tensor, path, threads, figuresKept, firstRow, rowCount, w, out, operands = []) =>
      call(merge, [tensor, PATHS[path], threads, KEPT[figuresKept], firstRow, rowCount, w, w.byteLength, out, out.byteLength,
        operands.map(nativeBytes), operands.length]),
    mergeFile: (tensor, path, figuresKept, firstRow, rowCount, file, offset, out, operands = []) =>
      call(mergeFile, [tensor, PATHS[path], KEPT[figuresKept], firstRow, rowCount, file, offset, out, out.byteLength, operands.map(nativeBytes), operands.length]),
    figures(tensor) {
      const values = new Float64Array(4)
      callNow(figures, [tensor, values])
      const [patchNorm, realisedNorm, residualNorm, nonFinite] = values as unknown as [number, number, number, number]
      return { patchNorm, realisedNorm, residualNorm, nonFinite }
    },
    free: (tensor) => free(tensor),
    async countNonFinite(bytes, dtype) {
      const total = new Float64Array(1)
      const args = [bytes, bytes.byteLength, dtype, total]
      if (bytes.byteLength <= COUNTED_AT_ONCE) callNow(count, args)
      else await call(count, args)
      return total[0]!
    },
    initialFactors: (method, { bytes, dtype }, rows, cols, rank, threads, left, right) =>
      call(initial, [method, bytes, bytes.byteLength, dtype, rows, cols, rank, threads, left, left.length, right, right.length]),
    async *readHeader(bytes, fileSize) {
      const json = Buffer.allocUnsafeSlow(Math.min(HEADER_PART_BYTES, SHORT_HEADER_PART_BYTES + 4 * bytes.byteLength))
      const part = new BigUint64Array(3)
      for (let first = 0n; ; ) {
        await call(header, [bytes, bytes.byteLength, fileSize, first, json, json.byteLength, part])
        const [tensors, next, length] = part as unknown as [bigint, bigint, bigint]
        yield JSON.parse(json.toString('utf8', 0, Number(length))) as TensorInfo[]
        if (next >= tensors) return
        first = next
      }
    },
    openSource(file) {
      const made: [SourceHandle | null] = [null]
      callNow(sourceOpen, [file, made])
      return made[0]!
    },
    freeSource: (source) => sourceFree(source),
    async writeSegments(outputs, operands, path, threads, figuresKept, control) {
      const segments = outputs.map((output) => BigUint64Array.from(output.segments))
      const words = outputs.flatMap(({ source, destination }, i) => [source, BigInt(destination), koffi.address(segments[i]!), BigInt(segments[i]!.length / 6)])
      await call(write, [BigUint64Array.from(words), outputs.length, BigUint64Array.from(operands), operands.length / 2, PATHS[path], threads, KEPT[figuresKept], control], segments)
    },
    copyMemory: (out, from, threads) => callPlain(copy, [out, from, Math.min(out.byteLength, from.byteLength), threads]).then(() => undefined),
    fmaRate: (path, threads) => callPlain(fmaRate, [PATHS[path], threads]) as Promise<number>,
  }
}

function nativeBytes(bytes: Uint8Array) {
  return { bytes, size: bytes.byteLength }
}

function nativeMatrix({ bytes, dtype, offset, strides }: NativeMatrix) {
  return { bytes, size: bytes.byteLength, offset, row_stride: strides[0], col_stride: strides[1], dtype }
}

type NativeFunction = ReturnType<LibraryHandle['func']>

/** Arguments of running calls: their memory must not be collected while native threads use it. */
const held = new Set<readonly unknown[]>()

function callPlain(native: NativeFunction, args: readonly unknown[], alive?: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const used = [args, alive]
    held.add(used)
    native.async(...args, (error: unknown, result: unknown) => {
      held.delete(used)
      if (error) reject(error)
      else resolve(result)
    })
  })
}

/** `alive`: memory that the arguments point to. */
export async function call(native: NativeFunction, args: readonly unknown[], alive?: unknown): Promise<void> {
  const message = Buffer.alloc(MESSAGE_SIZE)
  const status = await callPlain(native, [...args, message, MESSAGE_SIZE], alive)
  check(status as number, message)
}

export function callNow(native: NativeFunction, args: readonly unknown[]): void {
  const message = Buffer.alloc(MESSAGE_SIZE)
  check(native(...args, message, MESSAGE_SIZE), message)
}

function check(status: number, message: Buffer): void {
  const name = STATUSES[status] ?? 'invalid'
  if (name !== 'ok') throw new CoreError(name, message.toString('utf8', 0, message.indexOf(0)))
}

