import { randomUUID } from 'node:crypto'
import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { getSystemErrorMap } from 'node:util'
import { DTYPE_BITS, type TargetDtype } from '../../patch/dtype.ts'
import { CoreError, type Library, type SourceHandle, type TensorHandle } from './library.ts'
import { operandRowBytes, packedBytes, packTensor, type Contribution, type Engine, type MergeFigures, type TensorSpec } from './tensor-merge.ts'

/**
 * One range of the destination; the segments in order make up the whole file. Offsets are into the source file, of which
 * any bytes are copied, and a tensor or a run of its rows is merged.
 */
export type Segment =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'copy'; readonly offset: number; readonly length: number }
  | {
      readonly kind: 'merge'
      readonly offset: number
      readonly dtype: TargetDtype
      readonly rows: number
      readonly cols: number
      /** A function is called when the tensor's turn comes, so that an adapter need not lie in memory whole. */
      readonly contributions: readonly Contribution[] | (() => readonly Contribution[] | Promise<readonly Contribution[]>)
      /** Where the rows of each operand begin, in the order of mergeRows (tensor-merge.ts). */
      readonly operands?: readonly OperandFile[]
    }

/** Where the rows of an operand begin: in a tensor of a sound safetensors file. */
export interface OperandFile {
  readonly path: string
  /** In bytes, from the start of the file. */
  readonly offset: number
}

export interface MergedFileJob {
  /** A sound safetensors file. */
  readonly source: string
  readonly destination: string
  readonly segments: readonly Segment[]
  /** Called about ten times a second, and once at the end, with bytes of the destination. */
  readonly onProgress?: (done: number, total: number) => void
  /** Aborting removes what was written and rejects with the signal's reason. */
  readonly signal?: AbortSignal
  /** False skips the fsync of the file and its folder, for files that are made again after a crash. Default true. */
  readonly sync?: boolean
}

export interface MergedFile {
  readonly bytes: number
  /** One per `merge` segment, in order. */
  readonly figures: readonly MergeFigures[]
  /** Whether the file system cloned the source, so that only changed bytes were written. */
  readonly cloned: boolean
}

/** The source's file, and what the core holds of it. */
interface Source {
  readonly file: FileHandle
  readonly checked: SourceHandle
}

interface Placed {
  readonly segment: Segment
  readonly at: number
  readonly length: number
}

/** Packed factors of one batch: bounds the memory while keeping all threads busy across small tensors. */
const BATCH_FACTOR_BYTES = 16 * 2 ** 20
const PROGRESS_MS = 100

/**
 * Writes `destination` as the segments say, from `source`: under a temporary name in the same folder,
 * synced, then renamed, so that the destination is either whole or as it was before.
 *
 * @throws Error with `code` (ENOSPC, ENOENT, …) and `path` where a file cannot be read or written; CoreError
 * where the source is no safetensors file or a segment is wrong.
 */
export async function writeMergedFile(engine: Engine, job: MergedFileJob): Promise<MergedFile> {
  job.signal?.throwIfAborted()
  const file = await open(job.source, 'r')
  try {
    const checked = openSource(engine.library, file, job.source)
    try {
      return await writeFrom(engine, job, { file, checked })
    } finally {
      engine.library.freeSource(checked)
    }
  } finally {
    await file.close()
  }
}

async function writeFrom(engine: Engine, job: MergedFileJob, source: Source): Promise<MergedFile> {
  const placed = await place(job, source.file)
  const total = placed.reduce((sum, { length }) => sum + length, 0)
  const temporary = join(dirname(job.destination), `.${basename(job.destination)}.${randomUUID()}.tmp`)
  const destination = await open(temporary, 'wx').catch((error) => {
    throw Object.assign(error, { path: job.destination })
  })
  try {
    const result = await fill(engine, job, placed, total, source, destination)
    if (job.sync !== false) await destination.sync()
    await destination.close()
    await rename(temporary, job.destination)
    if (job.sync !== false) await syncFolder(dirname(job.destination))
    return { bytes: total, ...result }
  } catch (error) {
    await destination.close().catch(() => undefined)
    await rm(temporary, { force: true })
    throw namingDestination(error, job.destination)
  }
}

async function fill(engine: Engine, job: MergedFileJob, placed: readonly Placed[], total: number, source: Source, destination: FileHandle) {
  const { library } = engine
  const inPlace = ({ segment, at }: Placed) => segment.kind === 'copy' && segment.offset === at
  const cloned = placed.some(inPlace) && library.cloneFile(source.file.fd, destination.fd)
  await destination.truncate(total)

  const control = new BigUint64Array(3)
  const files = new OperandFiles(library)
  const figures: MergeFigures[] = []
  let written = 0
  const report = () => job.onProgress?.(Math.min(total, written + Number(control[0])), total)
  const timer = setInterval(report, PROGRESS_MS)
  const cancel = () => void (control[1] = 1n)
  job.signal?.addEventListener('abort', cancel)
  try {
    for await (const batch of batches(library, placed, files, (item) => cloned && inPlace(item))) {
      try {
        for (const { segment, at } of batch.bytes) {
          if (segment.kind === 'bytes') await writeAll(destination, segment.bytes, at)
        }
        await library.writeSegments(source.checked, destination.fd, batch.segmentWords(), batch.operandWords(), engine.path, engine.threads, control)
        for (const tensor of batch.tensors) figures.push(library.figures(tensor))
      } catch (error) {
        job.signal?.throwIfAborted()
        throw withErrno(error, Number(control[2]))
      } finally {
        batch.tensors.forEach((tensor) => library.free(tensor))
      }
      written += batch.skippedBytes
    }
    job.signal?.throwIfAborted()
    written = total
    report()
  } finally {
    clearInterval(timer)
    job.signal?.removeEventListener('abort', cancel)
    files.close()
  }
  return { figures, cloned }
}

/** The files that operands lie in, each opened once. */
class OperandFiles {
  readonly #library: Library
  readonly #sources = new Map<string, SourceHandle>()

  constructor(library: Library) {
    this.#library = library
  }

  async get({ path, offset }: OperandFile): Promise<Operand> {
    let source = this.#sources.get(path)
    if (source === undefined) {
      const file = await open(path, 'r')
      try {
        source = openSource(this.#library, file, path)
        this.#sources.set(path, source)
      } finally {
        await file.close()
      }
    }
    if (!Number.isSafeInteger(offset) || offset < 0) throw new CoreError('invalid', `an operand begins at byte ${offset} of ${path}: a whole number is needed`)
    return { source, offset }
  }

  close(): void {
    this.#sources.forEach((source) => this.#library.freeSource(source))
  }
}

interface Operand {
  readonly source: SourceHandle
  readonly offset: number
}

class Batch {
  readonly bytes: Placed[] = []
  readonly tensors: TensorHandle[] = []
  /** Bytes of the destination that the native call does not count. */
  skippedBytes = 0
  factorBytes = 0
  readonly #segments: bigint[] = []
  readonly #operands: bigint[] = []

  copy(sourceOffset: number, at: number, length: number): void {
    this.#segments.push(0n, BigInt(sourceOffset), BigInt(at), BigInt(length), 0n, 0n)
  }

  merge(sourceOffset: number, at: number, length: number, tensor: TensorHandle, operands: readonly Operand[]): void {
    this.tensors.push(tensor)
    this.#segments.push(1n, BigInt(sourceOffset), BigInt(at), BigInt(length), tensor, BigInt(this.#operands.length / 2))
    for (const { source, offset } of operands) this.#operands.push(source, BigInt(offset))
  }

  segmentWords(): BigUint64Array {
    return BigUint64Array.from(this.#segments)
  }

  operandWords(): BigUint64Array {
    return BigUint64Array.from(this.#operands)
  }
}

async function* batches(library: Library, placed: readonly Placed[], files: OperandFiles, isThere: (item: Placed) => boolean): AsyncGenerator<Batch> {
  let batch = new Batch()
  try {
    for (const item of placed) {
      const { segment, at, length } = item
      if (length === 0) continue
      if (segment.kind === 'bytes') {
        batch.bytes.push(item)
        batch.skippedBytes += length
      } else if (isThere(item)) {
        batch.skippedBytes += length
      } else if (segment.kind === 'copy') {
        batch.copy(segment.offset, at, length)
      } else {
        const contributions = typeof segment.contributions === 'function' ? await segment.contributions() : segment.contributions
        const spec = { ...segment, contributions }
        const operands = await openOperands(files, spec, segment.operands ?? [])
        const factorBytes = packedBytes(spec)
        if (batch.factorBytes > 0 && batch.factorBytes + factorBytes > BATCH_FACTOR_BYTES) {
          yield batch
          batch = new Batch()
        }
        batch.factorBytes += factorBytes
        batch.merge(segment.offset, at, length, packTensor(library, spec), operands)
      }
    }
  } catch (error) {
    batch.tensors.forEach((tensor) => library.free(tensor))
    throw error
  }
  yield batch
}

async function openOperands(files: OperandFiles, spec: TensorSpec, operands: readonly OperandFile[]): Promise<Operand[]> {
  const needed = operandRowBytes(spec).length
  if (needed !== operands.length) throw new CoreError('invalid', `${operands.length} operands were given where the contributions have ${needed}`)
  const opened: Operand[] = []
  for (const operand of operands) opened.push(await files.get(operand))
  return opened
}

/** Places the segments one after another, and checks that they lie within the source. */
async function place(job: MergedFileJob, source: FileHandle): Promise<Placed[]> {
  const { size } = await source.stat()
  let at = 0
  return job.segments.map((segment, index) => {
    const length =
      segment.kind === 'bytes' ? segment.bytes.byteLength
      : segment.kind === 'copy' ? segment.length
      : segment.rows * segment.cols * (DTYPE_BITS[segment.dtype] / 8)
    if (segment.kind !== 'bytes' && !(Number.isSafeInteger(segment.offset) && segment.offset >= 0 && Number.isSafeInteger(length) && length >= 0 && segment.offset + length <= size)) {
      throw new CoreError('invalid', `segment ${index} takes bytes ${segment.offset}..+${length} of ${job.source}, which has ${size}`)
    }
    const item = { segment, at, length }
    at += length
    return item
  })
}

function openSource(library: Library, file: FileHandle, path: string): SourceHandle {
  try {
    return library.openSource(file.fd)
  } catch (error) {
    if (error instanceof CoreError) error.message = `${path} is not a sound safetensors file: ${error.message}`
    throw error
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    done += (await file.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function withErrno(error: unknown, errno: number): unknown {
  if (!(error instanceof CoreError) || error.status !== 'io') return error
  return Object.assign(error, { errno: -errno, code: getSystemErrorMap().get(-errno)?.[0] ?? 'EIO' })
}

/** Puts the destination's path into errors that name no file, and says what to do when the disk is full. */
function namingDestination(error: unknown, destination: string): unknown {
  if (!(error instanceof Error) || !('code' in error) || 'path' in error) return error
  const advice = error.code === 'ENOSPC' || error.code === 'EDQUOT' ? ' The disk is full: free space or choose another folder; nothing was left behind.' : ''
  error.message = `${destination}: ${error.message}.${advice}`
  return Object.assign(error, { path: destination })
}
