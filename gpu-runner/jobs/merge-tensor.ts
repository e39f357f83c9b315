import { createHash } from 'node:crypto'
import { blockContributions } from '../core/block-contributions.ts'
import type { MergeFigures, TensorMerge } from '../core/tensor-merge.ts'
import { CoreError } from '../core/library.ts'
import { byteReader } from '../byte-reader.ts'
import { download, downloadBytes, SizeMismatchError } from '../download.ts'
import { JobFailure } from '../job-failure.ts'
import type { MergeBlock, MergedTensor, MergeTensor } from '../protocol.ts'
import { upload, type WritePiece } from '../upload.ts'
import type { JobContext } from './job-context.ts'

/** Bytes merged at once: large enough for the core's threads, small enough to have many. */
const TILE_BYTES = 2 * 1024 * 1024
/** One tile is read, one merged and one sent at the same time. */
const TILES = 3

interface Tile {
  readonly block: MergeBlock
  /** Of the block. */
  readonly firstRow: number
  readonly rows: number
}

/** Rows that are merged at once: as many as fit a tile, at least one. */
function rowsPerTile({ rows, length }: MergeTensor): number {
  return Math.max(1, Math.min(rows, Math.floor((TILE_BYTES * rows) / length)))
}

/** The tensor's rows in order; no tile reaches from one block into the next. */
function tilesOf(tensor: MergeTensor): Tile[] {
  const rowsAtOnce = rowsPerTile(tensor)
  return tensor.blocks.flatMap((block) => Array.from({ length: Math.ceil(block.count / rowsAtOnce) }, (_, index) => ({
    block, firstRow: index * rowsAtOnce, rows: Math.min(rowsAtOnce, block.count - index * rowsAtOnce),
  })))
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

/** Most bytes that mergeTensor holds for this tensor: tiles, factors as stored, and one block's in their packed form. */
export function memoryNeeded(tensor: MergeTensor): number {
  const tile = rowsPerTile(tensor) * (tensor.length / tensor.rows)
  const stored = tensor.factors.reduce((sum, { length }) => sum + length, 0)
  const packed = tensor.blocks.map(({ count, contributions }) => contributions.reduce((sum, one) => sum + ('rank' in one ? 4 * one.rank * (count + tensor.cols) : 0), 0))
  return TILES * tile + stored + Math.max(...packed)
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
    const outcome = await namingTensor(tensor, async () => {
      const factors = await Promise.all(tensor.factors.map(async ({ get, length, dtype }) => ({ bytes: await downloadBytes(get, length, signal), dtype })))
      const open = (block: MergeBlock) => core.tensor({ dtype: tensor.dtype, rows: block.count, cols: tensor.cols, contributions: blockContributions(block, tensor.cols, factors) })
      return streamRows({ tensor, open, buffers, write, signal, count })
    })
    if (outcome.figures.nonFinite > 0) {
      throw new JobFailure('non_finite_result', `Merging the tensor ${tensor.name} gives ${outcome.figures.nonFinite} values that are NaN or infinite: the patches are too large for ${tensor.dtype} at these weights. Lower the weights or leave a patch out.`, false)
    }
    return { name: tensor.name, digest: outcome.digest, length: tensor.length, patchNorm: outcome.figures.patchNorm, realisedNorm: outcome.figures.realisedNorm }
  })
}

interface RowStream {
  readonly tensor: MergeTensor
  readonly buffers: readonly Buffer[]
  readonly write: WritePiece
  readonly signal: AbortSignal
  open(block: MergeBlock): TensorMerge
  count(bytes: number): void
}

/** Tile i+1 is read and tile i−1 sent while the core merges tile i. Blocks without contributions pass through. */
async function streamRows({ tensor, open, buffers, write, signal, count }: RowStream): Promise<{ digest: string; figures: MergeFigures }> {
  const rowBytes = tensor.length / tensor.rows
  const tiles = tilesOf(tensor)
  const hash = createHash('sha256')
  const reader = byteReader(download(tensor.source, tensor.length, signal))
  const read = async (index: number) => {
    const bytes = buffers[index % TILES]!.subarray(0, tiles[index]!.rows * rowBytes)
    await reader.fill(bytes)
    return bytes
  }
  let reading = read(0)
  let writing: Promise<void> = Promise.resolve()
  let merge: TensorMerge | null = null
  const figures: MergeFigures[] = []
  try {
    for (const [index, { block, firstRow, rows }] of tiles.entries()) {
      const bytes = await reading
      if (index + 1 < tiles.length) {
        reading = read(index + 1)
        reading.catch(() => undefined)
      }
      if (firstRow === 0 && block.contributions.length > 0) merge = open(block)
      await merge?.mergeRows(firstRow, rows, bytes, bytes)
      if (firstRow + rows === block.count && merge !== null) {
        figures.push(merge.finish())
        merge = null
      }
      await writing
      writing = write(bytes)
      writing.catch(() => undefined)
      hash.update(bytes)
      count(bytes.byteLength)
    }
    await writing
  } finally {
    await Promise.allSettled([reading, writing])
    merge?.finish()
    await reader.close()
  }
  return { digest: `sha256:${hash.digest('hex')}`, figures: sumFigures(figures) }
}

/** The figures of a tensor from those of its blocks. */
function sumFigures(blocks: readonly MergeFigures[]): MergeFigures {
  return {
    patchNorm: Math.hypot(...blocks.map(({ patchNorm }) => patchNorm)),
    realisedNorm: Math.hypot(...blocks.map(({ realisedNorm }) => realisedNorm)),
    residualNorm: Math.hypot(...blocks.map(({ residualNorm }) => residualNorm)),
    nonFinite: blocks.reduce((sum, { nonFinite }) => sum + nonFinite, 0),
  }
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
