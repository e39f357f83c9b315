import { open } from 'node:fs/promises'
import { getSystemErrorMap } from 'node:util'
import { packedBytes } from '../../patch/packed-bytes.ts'
import { CONTROL, CONTROL_WORDS, CoreError, type FiguresKept, type Library, type SourceHandle, type TensorHandle } from './library.ts'
import { namingDestination, openMergedFile, openSource, segmentBytes, type MergedFile, type MergedFileSpec, type OpenMergedFile, type OperandFile, type PlacedSegment } from './merged-file.ts'
import { operandRowBytes, packTensor, type Engine, type TensorSpec } from './tensor-merge.ts'

export interface MergedFilesJob {
  readonly files: readonly MergedFileSpec[]
  /** Called about ten times a second, and once at the end, with bytes of all destinations. */
  readonly onProgress?: (done: number, total: number) => void
  /** Aborting removes what is not finished and rejects with the signal's reason. */
  readonly signal?: AbortSignal
  /** False skips the fsync of files and folders, for files that are made again after a crash. Default true. */
  readonly sync?: boolean
  /** What `figures` hold. Default `all`. */
  readonly figures?: FiguresKept
}

/** Seconds by phase. Those of the threads are added up over the threads, and overlap with the others. */
export interface MergeProfile {
  /** Of the whole. */
  readonly seconds: number
  /** Reading the factors and packing them for the kernel. */
  readonly factors: number
  /** Threads: reading W; computing; writing what was computed; copying what does not change. */
  readonly read: number
  readonly kernel: number
  readonly write: number
  readonly copy: number
  /** fsync of the files, of which several run at once. */
  readonly sync: number
}

export interface MergedFiles {
  /** In the order of the job. */
  readonly files: readonly MergedFile[]
  /** Bytes that the file system shares with the sources, where it can: they were not copied. */
  readonly bytesCloned: number
  readonly profile: MergeProfile
}

/** Packed factors of one batch, of which one is written while the next is prepared: bounds the memory. */
const BATCH_FACTOR_BYTES = 8 * 2 ** 20
/** Of the first batch, for which the threads wait. */
const FIRST_FACTOR_BYTES = 2 ** 20
/** Files written in turn: a file system lets one thread write into a file at a time. */
const FILES_AT_ONCE = 4
const PROGRESS_MS = 100

/**
 * Writes merged files as their segments say, each under a temporary name in its folder, synced, then renamed, so that a
 * destination is either whole or as it was before.
 *
 * @throws Error with `code` (ENOSPC, ENOENT, …) and `path` where a file cannot be read or written; CoreError where a
 * source is no safetensors file or a segment is wrong.
 */
export async function writeMergedFiles(engine: Engine, job: MergedFilesJob): Promise<MergedFiles> {
  job.signal?.throwIfAborted()
  const run = new Run(engine, job)
  const timer = setInterval(() => run.report(), PROGRESS_MS)
  const cancel = () => run.cancel()
  job.signal?.addEventListener('abort', cancel)
  try {
    return await run.all()
  } finally {
    clearInterval(timer)
    job.signal?.removeEventListener('abort', cancel)
  }
}

/** A file that is being written, and how far its segments have been handed out. */
interface Lane {
  readonly index: number
  readonly file: OpenMergedFile
  next: number
}

/** What is written by one call into the core. */
interface Batch {
  readonly outputs: Map<Lane, { segments: bigint[]; tensors: TensorHandle[] }>
  readonly operands: bigint[]
  /** Files that are whole once the batch is written. */
  readonly completed: Lane[]
  factorBytes: number
  /** Bytes of the destinations that the core does not count. */
  otherBytes: number
}

class Run {
  readonly #engine: Engine
  readonly #job: MergedFilesJob
  readonly #control = new BigUint64Array(CONTROL_WORDS)
  readonly #waiting: { spec: MergedFileSpec; index: number }[]
  #lanes: Lane[] = []
  readonly #operandFiles: OperandFiles
  readonly #scratch = new Scratch()
  readonly #unfinished = new Set<OpenMergedFile>()
  readonly #finishing: Promise<void>[] = []
  readonly #files: MergedFile[] = []
  readonly #total: number
  #written = 0
  #factors = 0
  #sync = 0

  constructor(engine: Engine, job: MergedFilesJob) {
    this.#engine = engine
    this.#job = job
    this.#operandFiles = new OperandFiles(engine.library)
    this.#waiting = job.files.map((spec, index) => ({ spec, index }))
    this.#total = job.files.flatMap(({ segments }) => segments).reduce((sum, segment) => sum + segmentBytes(segment), 0)
  }

  cancel(): void {
    this.#control[CONTROL.cancel] = 1n
  }

  report(): void {
    this.#job.onProgress?.(Math.min(this.#total, this.#written + Number(this.#control[CONTROL.bytesDone])), this.#total)
  }

  async all(): Promise<MergedFiles> {
    const start = performance.now()
    let prepared = this.#prepare(FIRST_FACTOR_BYTES)
    try {
      for (let batch = await prepared; batch !== null; batch = await prepared) {
        prepared = this.#prepare(BATCH_FACTOR_BYTES)
        // Its error is thrown where it is awaited, or is not the first.
        prepared.catch(() => undefined)
        await this.#write(batch)
      }
      await Promise.all(this.#finishing)
      this.#job.signal?.throwIfAborted()
    } catch (error) {
      this.cancel()
      const unwritten = await prepared.catch(() => null)
      if (unwritten !== null) this.#free(unwritten)
      await Promise.allSettled(this.#finishing)
      await Promise.all([...this.#unfinished].map((file) => file.discard()))
      throw error
    } finally {
      this.#operandFiles.close()
    }
    this.#written = this.#total
    this.report()
    return { files: this.#files, bytesCloned: Number(this.#control[CONTROL.bytesCloned]), profile: this.#profile((performance.now() - start) / 1000) }
  }

  #profile(seconds: number): MergeProfile {
    const [read, kernel, write, copy] = (['read', 'kernel', 'write', 'copy'] as const).map((phase) => Number(this.#control[CONTROL[phase]]) / 1e9) as [number, number, number, number]
    return { seconds, factors: this.#factors / 1000, read, kernel, write, copy, sync: this.#sync / 1000 }
  }

  /** Takes segments from each file in turn until there are factors enough; null at the end. */
  async #prepare(factorBytes: number): Promise<Batch | null> {
    const batch: Batch = { outputs: new Map(), operands: [], completed: [], factorBytes: 0, otherBytes: 0 }
    try {
      while (batch.factorBytes < factorBytes) {
        await this.#openLanes()
        if (this.#lanes.length === 0) break
        for (const lane of [...this.#lanes]) {
          await this.#takeMerge(lane, batch)
          if (lane.next < lane.file.placed.length) continue
          this.#lanes = this.#lanes.filter((other) => other !== lane)
          batch.completed.push(lane)
        }
      }
    } catch (error) {
      this.#free(batch)
      throw error
    }
    return batch.outputs.size > 0 || batch.completed.length > 0 ? batch : null
  }

  async #openLanes(): Promise<void> {
    while (this.#lanes.length < FILES_AT_ONCE && this.#waiting.length > 0) {
      this.#job.signal?.throwIfAborted()
      const { spec, index } = this.#waiting.shift()!
      const file = await openMergedFile(this.#engine.library, spec)
      this.#unfinished.add(file)
      this.#lanes.push({ index, file, next: 0 })
    }
  }

  /** Takes the file's segments up to its next tensor that is merged. */
  async #takeMerge(lane: Lane, batch: Batch): Promise<void> {
    const { file } = lane
    while (lane.next < file.placed.length) {
      const item = file.placed[lane.next++]!
      const { segment, at, length } = item
      if (segment.kind === 'bytes') {
        await this.#naming(file, () => writeAll(file, segment.bytes, at))
        batch.otherBytes += length
      } else {
        const output = batch.outputs.get(lane) ?? { segments: [], tensors: [] }
        batch.outputs.set(lane, output)
        const range = [BigInt(segment.offset), BigInt(at), BigInt(length)]
        if (segment.kind === 'copy') {
          output.segments.push(0n, ...range, 0n, 0n)
          continue
        }
        const firstOperand = BigInt(batch.operands.length / 2)
        const tensor = await this.#pack(segment, batch)
        output.segments.push(1n, ...range, tensor, firstOperand)
        output.tensors.push(tensor)
        return
      }
    }
  }

  async #pack(segment: PlacedSegment['segment'] & { kind: 'merge' }, batch: Batch): Promise<TensorHandle> {
    const start = performance.now()
    const contributions = typeof segment.contributions === 'function' ? await segment.contributions((bytes) => this.#scratch.allocate(bytes)) : segment.contributions
    const spec = { ...segment, contributions }
    batch.operands.push(...await this.#operandFiles.words(segment.operands ?? [], spec))
    const tensor = packTensor(this.#engine.library, spec)
    this.#scratch.reset()
    batch.factorBytes += packedBytes(spec.rows, spec.cols, contributions)
    this.#factors += performance.now() - start
    return tensor
  }

  async #write(batch: Batch): Promise<void> {
    const { library, path, processorPath, threads } = this.#engine
    const outputs = [...batch.outputs]
    try {
      this.#job.signal?.throwIfAborted()
      await library.writeSegments(outputs.map(([{ file }, { segments }]) => ({ source: file.source, destination: file.destination.fd, segments })), batch.operands, path, threads, this.#job.figures ?? 'all', this.#control)
      for (const [{ file }, { tensors }] of outputs) {
        for (const tensor of tensors) {
          file.figures.push(library.figures(tensor))
          file.paths.push(library.computes(tensor, path) ? path : processorPath)
        }
      }
    } catch (error) {
      this.#job.signal?.throwIfAborted()
      const at = outputs[Number(this.#control[CONTROL.errorOutput])]?.[0].file.spec.destination
      throw at === undefined ? error : namingDestination(withErrno(error, Number(this.#control[CONTROL.errorNumber])), at)
    } finally {
      this.#free(batch)
    }
    this.#written += batch.otherBytes
    for (const lane of batch.completed) {
      const finishing = this.#finish(lane)
      // Its error is thrown once all batches are written.
      finishing.catch(() => undefined)
      this.#finishing.push(finishing)
    }
  }

  async #finish({ index, file }: Lane): Promise<void> {
    this.#job.signal?.throwIfAborted()
    const start = performance.now()
    this.#files[index] = await file.finish(this.#job.sync !== false)
    this.#unfinished.delete(file)
    this.#sync += performance.now() - start
  }

  #free({ outputs }: Batch): void {
    for (const { tensors } of outputs.values()) tensors.splice(0).forEach((tensor) => this.#engine.library.free(tensor))
  }

  async #naming(file: OpenMergedFile, body: () => Promise<void>): Promise<void> {
    await body().catch((error) => {
      throw namingDestination(error, file.spec.destination)
    })
  }
}

/** Memory for the stored factors of one tensor at a time: garbage of this size is collected late. */
class Scratch {
  #memory = new ArrayBuffer(0)
  #used = 0

  allocate(bytes: number): Uint8Array<ArrayBuffer> {
    const at = this.#used
    // What was given out before stays with the memory that it lies in.
    if (at + bytes > this.#memory.byteLength) this.#memory = Buffer.allocUnsafeSlow(Math.max(2 * this.#memory.byteLength, at + bytes)).buffer as ArrayBuffer
    // Elements are aligned, whatever their dtype.
    this.#used = Math.ceil((at + bytes) / 64) * 64
    return new Uint8Array(this.#memory, at, bytes)
  }

  reset(): void {
    this.#used = 0
  }
}

/** The files that operands lie in, each opened once. */
class OperandFiles {
  readonly #library: Library
  readonly #sources = new Map<string, SourceHandle>()

  constructor(library: Library) {
    this.#library = library
  }

  /** Words of a portllm_operand each. */
  async words(operands: readonly OperandFile[], spec: TensorSpec): Promise<bigint[]> {
    const needed = operandRowBytes(spec).length
    if (needed !== operands.length) throw new CoreError('invalid', `${operands.length} operands were given where the contributions have ${needed}`)
    const words: bigint[] = []
    for (const { path, offset } of operands) {
      if (!Number.isSafeInteger(offset) || offset < 0) throw new CoreError('invalid', `an operand begins at byte ${offset} of ${path}: a whole number is needed`)
      words.push(await this.#source(path), BigInt(offset))
    }
    return words
  }

  async #source(path: string): Promise<SourceHandle> {
    const known = this.#sources.get(path)
    if (known !== undefined) return known
    const file = await open(path, 'r')
    try {
      const source = openSource(this.#library, file, path)
      this.#sources.set(path, source)
      return source
    } finally {
      await file.close()
    }
  }

  close(): void {
    this.#sources.forEach((source) => this.#library.freeSource(source))
  }
}

async function writeAll({ destination }: OpenMergedFile, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    done += (await destination.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten
  }
}

function withErrno(error: unknown, errno: number): unknown {
  if (!(error instanceof CoreError) || error.status !== 'io') return error
  return Object.assign(error, { errno: -errno, code: getSystemErrorMap().get(-errno)?.[0] ?? 'EIO' })
}
