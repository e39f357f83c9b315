import { createHash } from 'node:crypto'
import type { MergeFigures, TensorMerge } from '../core/tensor-merge.ts'
import { CoreError } from '../core/library.ts'
import { byteReader } from '../byte-reader.ts'
import { download, downloadBytes, SizeMismatchError } from '../download.ts'
import { JobFailure } from '../job-failure.ts'
import type { MergedTensor, MergeFactor, MergeTensor } from '../protocol.ts'
import { upload, type WritePiece } from '../upload.ts'
import type { JobContext } from './job-context.ts'

/** Bytes merged at once: large enough for the core's threads, small enough to have many. */
const TILE_BYTES = 2 * 1024 * 1024
/** One tile is read, one merged and one sent at the same time. */
const TILES = 3

/** Rows that are merged at once: as many as fit a tile, at least one. */
function rowsPerTile({ rows, cols, length }: MergeTensor): number {
  return Math.max(1, Math.min(rows, Math.floor(TILE_BYTES / (cols * (length / rows / cols)))))
}

/** The buffers of one tensor in flight. They are used again for the next one: garbage of this size is collected late. */
export class TileSet {
  readonly #tiles: Buffer[] = []

  /** Buffers of at least `bytes` each; those for a row longer than a tile are not kept. */
  get(bytes: number): readonly Buffer[] {
    if (bytes > TILE_BYTES) return Array.from({ length: TILES }, () => Buffer.allocUnsafeSlow(bytes))
    while (this.#tiles.length < TILES) this.#tiles.push(Buffer.allocUnsafeSlow(TILE_BYTES))
    return this.#tiles
  }
}

/** Most bytes that mergeTensor holds for this tensor: tiles, and factors as stored beside their packed form. */
export function memoryNeeded(tensor: MergeTensor): number {
  const tile = rowsPerTile(tensor) * (tensor.length / tensor.rows)
  const factors = tensor.addends.map(({ left, right, rank }) => left.length + right.length + 4 * rank * (tensor.rows + tensor.cols))
  return TILES * tile + factors.reduce((sum, bytes) => sum + bytes, 0)
}

/**
 * Merges one tensor from its signed GETs into its signed PUT. `onBytes` is told of the bytes merged; a negative
 * number takes back what an upload that failed had counted.
 */
export async function mergeTensor(tensor: MergeTensor, { core, signal, tiles }: Pick<JobContext, 'core' | 'signal'> & { tiles: TileSet }, onBytes: (count: number) => void): Promise<MergedTensor> {
  const buffers = tiles.get(rowsPerTile(tensor) * (tensor.length / tensor.rows))
  let counted = 0
  const count = (bytes: number) => {
    counted += bytes
    onBytes(bytes)
  }
  return upload(tensor.put, tensor.length, signal, async (write) => {
    count(-counted)
    const merge = await namingTensor(tensor, () => openMerge(tensor, core, signal))
    const outcome = await namingTensor(tensor, () => streamRows({ tensor, merge, tiles: buffers, write, signal, count }))
    if (outcome.figures.nonFinite > 0) {
      throw new JobFailure('non_finite_result', `Merging the tensor ${tensor.name} gives ${outcome.figures.nonFinite} values that are NaN or infinite: the patches are too large for ${tensor.dtype} at these weights. Lower the weights or leave a patch out.`, false)
    }
    return { name: tensor.name, digest: outcome.digest, length: tensor.length, patchNorm: outcome.figures.patchNorm, realisedNorm: outcome.figures.realisedNorm }
  })
}

async function openMerge(tensor: MergeTensor, core: JobContext['core'], signal: AbortSignal): Promise<TensorMerge> {
  const load = async ({ get, length, dtype, transpose }: MergeFactor) => ({ bytes: await downloadBytes(get, length, signal), dtype, transpose })
  const addends = await Promise.all(tensor.addends.map(async ({ left, right, rank, scale }) => {
    const [l, r] = await Promise.all([load(left), load(right)])
    return { left: l, right: r, rank, scale }
  }))
  return core.tensor({ dtype: tensor.dtype, rows: tensor.rows, cols: tensor.cols, addends })
}

interface RowStream {
  readonly tensor: MergeTensor
  readonly merge: TensorMerge
  readonly tiles: readonly Buffer[]
  readonly write: WritePiece
  readonly signal: AbortSignal
  count(bytes: number): void
}

/** Tile i+1 is read and tile i−1 sent while the core merges tile i. */
async function streamRows({ tensor, merge, tiles, write, signal, count }: RowStream): Promise<{ digest: string; figures: MergeFigures }> {
  const rowBytes = tensor.length / tensor.rows
  const rowsAtOnce = rowsPerTile(tensor)
  const tileCount = Math.ceil(tensor.rows / rowsAtOnce)
  const hash = createHash('sha256')
  const reader = byteReader(download(tensor.source, tensor.length, signal))
  const read = async (index: number) => {
    const rows = Math.min(rowsAtOnce, tensor.rows - index * rowsAtOnce)
    const bytes = tiles[index % TILES]!.subarray(0, rows * rowBytes)
    await reader.fill(bytes)
    return { rows, bytes }
  }
  let reading = read(0)
  let writing: Promise<void> = Promise.resolve()
  let figures: MergeFigures | null = null
  try {
    for (let index = 0; index < tileCount; index++) {
      const { rows, bytes } = await reading
      if (index + 1 < tileCount) {
        reading = read(index + 1)
        reading.catch(() => undefined)
      }
      await merge.mergeRows(index * rowsAtOnce, rows, bytes, bytes)
      await writing
      writing = write(bytes)
      writing.catch(() => undefined)
      hash.update(bytes)
      count(bytes.byteLength)
    }
    await writing
  } finally {
    await Promise.allSettled([reading, writing])
    figures = merge.finish()
    await reader.close()
  }
  return { digest: `sha256:${hash.digest('hex')}`, figures }
}

/** Says of which tensor an error is, in words that end the job. */
async function namingTensor<T>(tensor: MergeTensor, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof CoreError) throw new JobFailure(`core_${error.status}`, `The tensor ${tensor.name} cannot be merged: ${error.message}.`, error.status === 'memory')
    if (error instanceof SizeMismatchError) throw new JobFailure('input_changed', `The inputs of the tensor ${tensor.name} are not what the registry announced: ${error.message}.`, false)
    throw error
  }
}
