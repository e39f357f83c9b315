import { DTYPE_BITS, type MergeableDtype, type TargetDtype } from '../../patch/dtype.ts'
import type { RowRange } from '../../patch/edit.ts'
import type { Block } from '../../patch/merge-plan.ts'
import { byteReader, type ByteReader } from '../byte-reader.ts'
import { blockContributions, operandsOf } from './block-contributions.ts'
import type { Core } from './core.ts'
import type { CorePath } from './library.ts'
import type { MergeFigures, TensorMerge } from './tensor-merge.ts'

/** Bytes merged at once: large enough for the core's threads, small enough to have many. */
export const TILE_BYTES = 2 * 1024 * 1024
/** One tile is read and one merged while the reader holds on to the last two. */
export const TILES = 4

export interface Located {
  readonly dtype: TargetDtype
  /** In bytes. */
  readonly length: number
}

/** A tensor of a merge plan (patch/merge-plan.ts); `Bytes` tells where the bytes of patches and bases are. */
export interface PlannedTensor<Bytes extends Located> {
  readonly dtype: TargetDtype
  readonly rows: number
  readonly cols: number
  readonly factors: readonly (Bytes & { readonly dtype: MergeableDtype })[]
  readonly blocks: readonly Block<Bytes>[]
}

type ByteStream = AsyncGenerator<Buffer, void, undefined>

/** Where a merge reads from: ranges of W, and of what the plan names. */
export interface MergeInputs<Bytes> {
  source(offset: number, length: number): ByteStream
  read(bytes: Bytes, offset: number, length: number): ByteStream
}

export interface MergedRowsOptions {
  readonly core: Pick<Core, 'tensor' | 'initialFactors'>
  /** The rows that are wanted; all by default. */
  readonly rows?: RowRange
  /** TILES buffers of at least a row each; as many rows as fit one are merged at once. */
  readonly buffers: readonly Buffer[]
  /** Told of each block's figures, over the rows that are wanted, and of what computed it; without it none are computed. */
  readonly onFigures?: (figures: MergeFigures, path: CorePath) => void
}

interface Tile {
  readonly block: Block<Located>
  /** Of the block. */
  readonly firstRow: number
  readonly rows: number
  readonly isLast: boolean
}

/**
 * The bytes of the merged rows, tile by tile, in order. While a tile is looked at, the next one is merged and the one after
 * it is read; a tile's bytes are overwritten once the second one after it has been asked for. Blocks without contributions
 * pass through. Throws CoreError, and what the inputs throw; leaving the loop lets go of everything.
 */
export async function* mergedRows<Bytes extends Located>(tensor: PlannedTensor<Bytes>, inputs: MergeInputs<Bytes>, options: MergedRowsOptions): AsyncGenerator<Uint8Array, void, undefined> {
  const { first, count } = options.rows ?? { first: 0, count: tensor.rows }
  const bytesOfRow = rowBytes(tensor)
  const rowsAtOnce = Math.floor(options.buffers[0]!.byteLength / bytesOfRow)
  const tiles = tilesOf(tensor, first, count, rowsAtOnce)
  const factors = await Promise.all(tensor.factors.map(async (factor) => ({ bytes: await readAll(inputs.read(factor, 0, factor.length), factor.length), dtype: factor.dtype })))
  const w = byteReader(inputs.source(first * bytesOfRow, count * bytesOfRow))
  const operands = new OperandReader(tensor.cols, inputs)
  let merge: TensorMerge | null = null

  async function read(index: number) {
    const tile = tiles[index]!
    const bytes = options.buffers[index % TILES]!.subarray(0, tile.rows * bytesOfRow)
    const [, values] = await Promise.all([fillWhole(w, bytes), operands.next(tile)])
    return { tile, bytes, values }
  }
  async function open(block: Block<Bytes>): Promise<TensorMerge | null> {
    if (block.contributions.length === 0) return null
    const readBase = (base: Bytes) => readAll(inputs.read(base, 0, base.length), base.length)
    const contributions = await blockContributions(block, tensor.cols, { core: options.core, factors, readBase })
    const opened = options.core.tensor({ dtype: tensor.dtype, rows: block.count, cols: tensor.cols, contributions }, { figures: options.onFigures !== undefined })
    if (opened.measures) await measure(opened, block)
    return opened
  }
  async function measure(opened: TensorMerge, block: Block<Bytes>): Promise<void> {
    const reader = byteReader(inputs.source(block.first * bytesOfRow, block.count * bytesOfRow))
    const buffer = Buffer.allocUnsafeSlow(rowsAtOnce * bytesOfRow)
    try {
      for (let row = 0; row < block.count; row += rowsAtOnce) {
        const bytes = buffer.subarray(0, Math.min(rowsAtOnce, block.count - row) * bytesOfRow)
        await fillWhole(reader, bytes)
        await opened.measureRows(row, bytes.byteLength / bytesOfRow, bytes)
      }
    } catch (error) {
      opened.finish()
      throw error
    } finally {
      await reader.close()
    }
  }
  let reading = read(0)
  reading.catch(() => undefined)
  async function produce(index: number): Promise<Uint8Array> {
    const { tile, bytes, values } = await reading
    if (index + 1 < tiles.length) {
      reading = read(index + 1)
      reading.catch(() => undefined)
    }
    if (index === 0 || tile.block !== tiles[index - 1]!.block) merge = await open(tile.block as Block<Bytes>)
    if (merge === null) return bytes
    await merge.mergeRows(tile.firstRow, tile.rows, bytes, bytes, values)
    if (tile.isLast) {
      const { path } = merge
      const figures = merge.finish()
      merge = null
      options.onFigures?.(figures, path)
    }
    return bytes
  }

  let producing = produce(0)
  try {
    for (const index of tiles.keys()) {
      const bytes = await producing
      if (index + 1 < tiles.length) {
        producing = produce(index + 1)
        producing.catch(() => undefined)
      }
      yield bytes
    }
  } finally {
    await Promise.allSettled([producing])
    await Promise.allSettled([reading])
    ;(merge as TensorMerge | null)?.finish()
    await w.close()
    await operands.close()
  }
}

/** A good size for the buffers: a tile, but no more than the tensor has and no less than a row. */
export function tileBytes(tensor: Pick<PlannedTensor<Located>, 'dtype' | 'rows' | 'cols'>): number {
  const bytes = rowBytes(tensor)
  return Math.max(1, Math.min(tensor.rows, Math.floor(TILE_BYTES / bytes))) * bytes
}

/** The figures of a tensor from those of its blocks. */
export function sumFigures(blocks: readonly MergeFigures[]): MergeFigures {
  const norm = (of: (block: MergeFigures) => number) => Math.sqrt(blocks.reduce((sum, block) => sum + of(block) ** 2, 0))
  return {
    patchNorm: norm(({ patchNorm }) => patchNorm),
    realisedNorm: norm(({ realisedNorm }) => realisedNorm),
    residualNorm: norm(({ residualNorm }) => residualNorm),
    nonFinite: blocks.reduce((sum, { nonFinite }) => sum + nonFinite, 0),
  }
}

function rowBytes({ dtype, cols }: { readonly dtype: TargetDtype; readonly cols: number }): number {
  return (cols * DTYPE_BITS[dtype]) / 8
}

/** The wanted rows in order; no tile reaches from one block into the next. */
function tilesOf({ blocks }: Pick<PlannedTensor<Located>, 'blocks'>, first: number, count: number, atOnce: number): Tile[] {
  return blocks.flatMap((block) => {
    const begin = Math.max(first, block.first)
    const end = Math.min(first + count, block.first + block.count)
    return Array.from({ length: Math.max(0, Math.ceil((end - begin) / atOnce)) }, (_, index) => {
      const row = begin + index * atOnce
      return { block, firstRow: row - block.first, rows: Math.min(atOnce, end - row), isLast: row + atOnce >= end }
    })
  })
}

/** Reads the rows of a block's dense and replacing operands, a tile at a time, into two sets of buffers by turns. */
class OperandReader<Bytes extends Located> {
  readonly #cols: number
  readonly #inputs: MergeInputs<Bytes>
  readonly #buffers: Buffer[][] = [[], []]
  #turn = 0
  #block: Block<Located> | null = null
  #readers: ByteReader[] = []
  #rowBytes: number[] = []

  constructor(cols: number, inputs: MergeInputs<Bytes>) {
    this.#cols = cols
    this.#inputs = inputs
  }

  async next({ block, firstRow, rows }: Tile): Promise<Buffer[]> {
    if (block !== this.#block) {
      await this.close()
      this.#block = block
      const operands = operandsOf(block as Block<Bytes>)
      this.#rowBytes = operands.map(({ dtype }) => rowBytes({ dtype, cols: this.#cols }))
      this.#readers = operands.map((bytes, index) => byteReader(this.#inputs.read(bytes, firstRow * this.#rowBytes[index]!, bytes.length - firstRow * this.#rowBytes[index]!)))
    }
    this.#turn = 1 - this.#turn
    const buffers = this.#buffers[this.#turn]!
    return Promise.all(this.#readers.map(async (reader, index) => {
      const length = rows * this.#rowBytes[index]!
      if ((buffers[index]?.byteLength ?? 0) < length) buffers[index] = Buffer.allocUnsafeSlow(length)
      const values = buffers[index]!.subarray(0, length)
      await fillWhole(reader, values)
      return values
    }))
  }

  async close(): Promise<void> {
    for (const reader of this.#readers.splice(0)) await reader.close()
  }
}

async function readAll(stream: ByteStream, length: number): Promise<Buffer<ArrayBuffer>> {
  const bytes = Buffer.allocUnsafeSlow(length)
  const reader = byteReader(stream)
  try {
    await fillWhole(reader, bytes)
  } finally {
    await reader.close()
  }
  return bytes
}

async function fillWhole(reader: ByteReader, bytes: Buffer): Promise<void> {
  const filled = await reader.fill(bytes)
  if (filled < bytes.byteLength) throw new Error(`an input of the merge ends ${bytes.byteLength - filled} bytes early`)
}
