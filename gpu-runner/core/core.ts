import { availableParallelism } from 'node:os'
import type { Dtype } from '../../patch/dtype.ts'
import type { TensorInfo } from '../../patch/safetensors.ts'
import { openAnalysisLibrary } from './analysis-library.ts'
import { startCuda, tryCuda } from './cuda.ts'
import { initialFactors, type InitialFactors, type InitialFactorsSpec } from './initial-factors.ts'
import { CORE_DTYPES, CoreError, openLibrary, PATHS, type CorePath, type Library } from './library.ts'
import type { MergedFile, MergedFileSpec } from './merged-file.ts'
import { writeMergedFiles, type MergedFiles, type MergedFilesJob } from './merged-files.ts'
import { openAnalysis, type AnalysisSpec, type TensorAnalysis } from './tensor-analysis.ts'
import { openTensor, type TensorMerge, type TensorOptions, type TensorSpec } from './tensor-merge.ts'

export { CoreError, type CorePath } from './library.ts'
export type { InitialFactors, InitialFactorsSpec } from './initial-factors.ts'
export type { Allocate, MergedFile, MergedFileSpec, Segment } from './merged-file.ts'
export type { MergedFiles, MergedFilesJob, MergeProfile } from './merged-files.ts'
export type { AnalysisSpec, TensorAnalysis } from './tensor-analysis.ts'
export type { Contribution, FactorBytes, MergeFigures, StoredNumbers, TensorMerge, TensorOptions, TensorSpec } from './tensor-merge.ts'

export interface Core {
  /** Instruction set in use; the output does not depend on it. */
  readonly path: CorePath
  /** Which GPUs are used, or why none is; null where none was asked for. */
  readonly gpu: string | null
  /** Version of the native interface and its rules, such as `2 lora-f32/1 dora-f32/1`. */
  readonly version: string
  readonly threads: number
  /** @throws CoreError where sizes disagree, a factor is F64 or holds a NaN or an infinity, or contributions exclude each other. */
  tensor(spec: TensorSpec, options?: TensorOptions): TensorMerge
  /** Figures of a patch on a tensor that has evolved (docs/analysis.md). @throws CoreError, likewise. */
  analysis(spec: AnalysisSpec): TensorAnalysis
  /**
   * What PiSSA or OLoRA took out of the base (initial-factors.ts), in seconds for a large tensor.
   *
   * @throws CoreError: `undetermined` where the base does not decide it.
   */
  initialFactors(spec: InitialFactorsSpec): Promise<InitialFactors>
  /** NaNs and infinities among `bytes`; 0 for dtypes that have none. */
  countNonFinite(bytes: Uint8Array, dtype: Dtype): Promise<number>
  /**
   * What the core reads in a safetensors file of `fileSize` bytes, of which `bytes` are the first, the header at least.
   * In parts, in the order of the tensors' data; offsets are from the start of the file. @throws CoreError, `invalid` where
   * the header is unsound.
   */
  readHeader(bytes: Uint8Array, fileSize: number): AsyncIterable<readonly TensorInfo[]>
  /** Writes merged files, each from one source file (merged-files.ts). */
  writeMergedFiles(job: MergedFilesJob): Promise<MergedFiles>
  /** One of them. */
  writeMergedFile(job: MergedFileSpec & Omit<MergedFilesJob, 'files'>): Promise<MergedFile>
}

export interface CoreOptions {
  /** Overrides PORTLLM_CORE_PATH and the choice by processor. */
  readonly path?: CorePath
  /** Use GPUs where the CUDA helper is built and this machine has a driver, unless a path is named. Default false. */
  readonly gpu?: boolean
  /** Threads per call; default: all processors. */
  readonly threads?: number
}

/**
 * Loads the merge core, compiling it first where needed.
 *
 * @throws Error where PORTLLM_CORE_PATH is unknown or this machine cannot run it, or without a C++ compiler.
 */
export async function loadCore(options: CoreOptions = {}): Promise<Core> {
  const library = await openLibrary()
  const analysisLibrary = await openAnalysisLibrary()
  const threads = options.threads ?? availableParallelism()
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new CoreError('invalid', `threads is ${threads}: a whole number from 1 to 1024 is needed`)
  }
  const { path, gpu } = await choosePath(library, options)
  const engine = { library, path, processorPath: processorPath(library), threads }
  return {
    path,
    gpu,
    version: library.version(),
    threads,
    tensor: (spec, tensorOptions) => openTensor(engine, spec, tensorOptions),
    analysis: (spec) => openAnalysis({ ...engine, path: engine.processorPath }, analysisLibrary, spec),
    initialFactors: (spec) => initialFactors(engine, spec),
    countNonFinite: async (bytes, dtype) => countNonFinite(library, bytes, dtype),
    readHeader: (bytes, fileSize) => library.readHeader(bytes, fileSize),
    writeMergedFiles: (job) => writeMergedFiles(engine, job),
    writeMergedFile: async (job) => (await writeMergedFiles(engine, { ...job, files: [job] })).files[0]!,
  }
}

const KNOWN = Object.keys(PATHS) as CorePath[]

function processorPath(library: Library): CorePath {
  return KNOWN.findLast((path) => path !== 'cuda' && library.supports(path))!
}

/** A path that is asked for is used or refused; nothing takes its place. */
async function choosePath(library: Library, options: CoreOptions): Promise<{ path: CorePath; gpu: string | null }> {
  const wanted = options.path ?? process.env.PORTLLM_CORE_PATH
  if (wanted === undefined || wanted === '') {
    if (!options.gpu) return { path: processorPath(library), gpu: null }
    const { started, note } = await tryCuda(library)
    return { path: started ? 'cuda' : processorPath(library), gpu: note }
  }
  const path = KNOWN.find((name) => name === wanted)
  if (!path) throw new CoreError('unsupported', `PORTLLM_CORE_PATH is "${wanted}": expected ${KNOWN.join(', ')}, or unset for the best`)
  if (path === 'cuda') return { path, gpu: await startCuda(library) }
  if (!library.supports(path)) {
    const usable = KNOWN.filter((name) => library.supports(name))
    throw new CoreError('unsupported', `this processor cannot run the core's path "${path}": it can run ${usable.join(', ')}`)
  }
  return { path, gpu: null }
}

async function countNonFinite(library: Library, bytes: Uint8Array, dtype: Dtype): Promise<number> {
  // Two float32 to an element; a complex number is non-finite where one of them is, so this may count it twice.
  const counted = dtype === 'C64' ? 'F32' : dtype
  const number = CORE_DTYPES[counted]
  return number === undefined ? 0 : library.countNonFinite(bytes, number)
}
