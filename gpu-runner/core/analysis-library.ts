import koffi from 'koffi'
import { buildCore } from './build.ts'
import { call, callNow, PATHS, type CorePath, type NativeMatrix } from './library.ts'

/** Address of a `portllm_analysis`. */
export type AnalysisHandle = bigint

/** The doubles of `portllm_analysis_sums`, in its order. */
export const SUMS = [
  'baseSquared', 'driftSquared', 'patchSquared', 'patchSpectral', 'inner', 'readRank', 'writeRank',
  'driftReadSquared', 'baseReadSquared', 'driftWriteSquared', 'baseWriteSquared',
] as const
export type NativeSums = Readonly<Record<(typeof SUMS)[number], number>>

/** The C functions of portllm_analysis.h; each throws or rejects with CoreError. */
export interface AnalysisLibrary {
  create(baseDtype: number, targetDtype: number, rows: number, cols: number): AnalysisHandle
  add(analysis: AnalysisHandle, left: NativeMatrix, right: NativeMatrix, rank: number, scale: number): void
  sample(analysis: AnalysisHandle, rows: readonly number[], base: Uint8Array): void
  rows(analysis: AnalysisHandle, path: CorePath, threads: number, firstRow: number, rowCount: number, base: Uint8Array, target: Uint8Array): Promise<void>
  finish(analysis: AnalysisHandle, path: CorePath): Promise<NativeSums>
  /** Three doubles for each of `count` sampled rows: `portllm_row_match`. */
  matches(analysis: AnalysisHandle, count: number): Float64Array
  free(analysis: AnalysisHandle): void
}

let opened: Promise<AnalysisLibrary> | undefined

/** The analysis of the core's shared library, which is compiled first where needed. */
export function openAnalysisLibrary(): Promise<AnalysisLibrary> {
  opened ??= buildCore().then(bind)
  opened.catch(() => (opened = undefined))
  return opened
}

function bind(file: string): AnalysisLibrary {
  const library = koffi.load(file)
  const pointer = koffi.pointer(koffi.opaque())
  const memory = 'void *'
  const matrix = koffi.struct({ bytes: memory, size: 'uint64_t', offset: 'uint64_t', row_stride: 'uint64_t', col_stride: 'uint64_t', dtype: 'int32_t' })
  const failing = (name: string, args: readonly unknown[]) => library.func(name, 'int32_t', [...(args as string[]), memory, 'size_t'])

  const create = failing('portllm_analysis_create', ['int32_t', 'int32_t', 'uint64_t', 'uint64_t', koffi.out(koffi.pointer(pointer))])
  const add = failing('portllm_analysis_add', [pointer, koffi.pointer(matrix), koffi.pointer(matrix), 'uint64_t', 'double'])
  const sample = failing('portllm_analysis_sample', [pointer, memory, 'uint64_t', memory, 'uint64_t'])
  const rows = failing('portllm_analysis_rows', [pointer, 'int32_t', 'uint32_t', 'uint64_t', 'uint64_t', memory, 'uint64_t', memory, 'uint64_t'])
  const finish = failing('portllm_analysis_finish', [pointer, 'int32_t', memory])
  const matches = failing('portllm_analysis_matches', [pointer, memory, 'uint64_t'])
  const free = library.func('portllm_analysis_free', 'void', [pointer])

  return {
    create(baseDtype, targetDtype, rowCount, cols) {
      const made: [AnalysisHandle | null] = [null]
      callNow(create, [baseDtype, targetDtype, rowCount, cols, made])
      return made[0]!
    },
    add: (analysis, left, right, rank, scale) => callNow(add, [analysis, struct(left), struct(right), rank, scale]),
    sample: (analysis, numbers, base) => callNow(sample, [analysis, BigUint64Array.from(numbers, BigInt), numbers.length, base, base.byteLength]),
    rows: (analysis, path, threads, firstRow, rowCount, base, target) =>
      call(rows, [analysis, PATHS[path], threads, firstRow, rowCount, base, base.byteLength, target, target.byteLength]),
    async finish(analysis, path) {
      const values = new Float64Array(SUMS.length)
      await call(finish, [analysis, PATHS[path], values])
      return Object.fromEntries(SUMS.map((name, index) => [name, values[index]!])) as NativeSums
    },
    matches(analysis, count) {
      const values = new Float64Array(3 * count)
      callNow(matches, [analysis, values, count])
      return values
    },
    free: (analysis) => free(analysis),
  }
}

function struct({ bytes, dtype, offset, strides }: NativeMatrix) {
  return { bytes, size: bytes.byteLength, offset, row_stride: strides[0], col_stride: strides[1], dtype }
}
