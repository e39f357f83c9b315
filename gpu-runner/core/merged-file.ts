import { randomUUID } from 'node:crypto'
import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { DTYPE_BITS, type TargetDtype } from '../../patch/dtype.ts'
import { CoreError, type CorePath, type Library, type SourceHandle } from './library.ts'
import type { Contribution, MergeFigures } from './tensor-merge.ts'

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
      readonly contributions: readonly Contribution[] | ((allocate: Allocate) => readonly Contribution[] | Promise<readonly Contribution[]>)
      /** Where the rows of each operand begin, in the order of mergeRows (tensor-merge.ts). */
      readonly operands?: readonly OperandFile[]
    }

/** Memory for factors, which is used again once the tensor is packed. */
export type Allocate = (bytes: number) => Uint8Array<ArrayBuffer>

/** Where the rows of an operand begin: in a tensor of a sound safetensors file. */
export interface OperandFile {
  readonly path: string
  /** In bytes, from the start of the file. */
  readonly offset: number
}

export interface MergedFileSpec {
  /** A sound safetensors file. */
  readonly source: string
  readonly destination: string
  readonly segments: readonly Segment[]
}

export interface MergedFile {
  readonly bytes: number
  /** One per `merge` segment, in order. */
  readonly figures: readonly MergeFigures[]
  /** What computed each of them: the core's path, or the processor's best where that cannot. */
  readonly paths: readonly CorePath[]
}

export interface PlacedSegment {
  readonly segment: Segment
  /** Where it begins in the destination. */
  readonly at: number
  readonly length: number
}

/** A merged file in the making: under a temporary name beside its destination, which stays as it is until `finish`. */
export interface OpenMergedFile {
  readonly spec: MergedFileSpec
  readonly source: SourceHandle
  readonly destination: FileHandle
  /** The segments that are not empty. */
  readonly placed: readonly PlacedSegment[]
  /** Filled while it is written. */
  readonly figures: MergeFigures[]
  readonly paths: CorePath[]
  /** Gives the file its name; synced before, and the folder after, unless told otherwise. */
  finish(sync: boolean): Promise<MergedFile>
  /** Removes what was written. */
  discard(): Promise<void>
}

/**
 * @throws Error with `code` (ENOENT, …) and `path` where a file cannot be opened; CoreError where the source is no
 * safetensors file or a segment lies outside of it.
 */
export async function openMergedFile(library: Library, spec: MergedFileSpec): Promise<OpenMergedFile> {
  const file = await open(spec.source, 'r')
  try {
    const source = openSource(library, file, spec.source)
    try {
      return await openDestination(library, spec, file, source)
    } catch (error) {
      library.freeSource(source)
      throw error
    }
  } finally {
    await file.close()
  }
}

async function openDestination(library: Library, spec: MergedFileSpec, file: FileHandle, source: SourceHandle): Promise<OpenMergedFile> {
  const placed = await place(spec, file)
  const bytes = placed.reduce((sum, { length }) => sum + length, 0)
  const temporary = join(dirname(spec.destination), `.${basename(spec.destination)}.${randomUUID()}.tmp`)
  const destination = await open(temporary, 'wx').catch((error) => {
    throw Object.assign(error, { path: spec.destination })
  })
  const discard = async () => {
    library.freeSource(source)
    await destination.close().catch(() => undefined)
    await rm(temporary, { force: true })
  }
  const figures: MergeFigures[] = []
  const paths: CorePath[] = []
  try {
    await destination.truncate(bytes)
  } catch (error) {
    await destination.close()
    await rm(temporary, { force: true })
    throw namingDestination(error, spec.destination)
  }
  return {
    spec, source, destination, figures, paths, discard,
    placed: placed.filter(({ length }) => length > 0),
    async finish(sync) {
      try {
        if (sync) await destination.sync()
        await destination.close()
        await rename(temporary, spec.destination)
        if (sync) await syncFolder(dirname(spec.destination))
      } catch (error) {
        throw namingDestination(error, spec.destination)
      }
      library.freeSource(source)
      return { bytes, figures, paths }
    },
  }
}

export function segmentBytes(segment: Segment): number {
  if (segment.kind === 'bytes') return segment.bytes.byteLength
  return segment.kind === 'copy' ? segment.length : segment.rows * segment.cols * (DTYPE_BITS[segment.dtype] / 8)
}

/** Places the segments one after another, and checks that they lie within the source. */
async function place(spec: MergedFileSpec, source: FileHandle): Promise<PlacedSegment[]> {
  const { size } = await source.stat()
  let at = 0
  return spec.segments.map((segment, index) => {
    const length = segmentBytes(segment)
    if (segment.kind !== 'bytes' && !(Number.isSafeInteger(segment.offset) && segment.offset >= 0 && Number.isSafeInteger(length) && length >= 0 && segment.offset + length <= size)) {
      throw new CoreError('invalid', `segment ${index} takes bytes ${segment.offset}..+${length} of ${spec.source}, which has ${size}`)
    }
    const item = { segment, at, length }
    at += length
    return item
  })
}

/** The file that the handle of `path` is of, checked by the core; the handle may be closed afterwards. */
export function openSource(library: Library, file: FileHandle, path: string): SourceHandle {
  try {
    return library.openSource(file.fd)
  } catch (error) {
    if (error instanceof CoreError) error.message = `${path} is not a sound safetensors file: ${error.message}`
    throw error
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

/** Puts the destination's path into errors that name no file, and says what to do when the disk is full. */
export function namingDestination(error: unknown, destination: string): unknown {
  if (!(error instanceof Error) || !('code' in error) || 'path' in error) return error
  const advice = error.code === 'ENOSPC' || error.code === 'EDQUOT' ? ' The disk is full: free space or choose another folder; nothing was left behind.' : ''
  error.message = `${destination}: ${error.message}.${advice}`
  return Object.assign(error, { path: destination })
}
