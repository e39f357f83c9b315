import { createHash } from 'node:crypto'
import { largest } from '../../patch/largest.ts'
import { blockMemory } from '../core/block-contributions.ts'
import { CoreError, type CorePath } from '../core/library.ts'
import { mergedRows, sumFigures, TILE_BYTES, tileBytes, TILES } from '../core/merged-rows.ts'
import type { MergeFigures } from '../core/tensor-merge.ts'
import { download, SizeMismatchError } from '../download.ts'
import { JobFailure } from '../job-failure.ts'
import type { MergedTensor, MergeTensor, SignedBytes } from '../protocol.ts'
import { upload, type WritePiece } from '../upload.ts'
import type { JobContext } from './job-context.ts'

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

/** Figures that the core keeps of each row. */
const FIGURES_BYTES = 32

/** Most bytes that mergeTensor holds for this tensor, about: tiles, factors as stored, and one block at a time. */
export function memoryNeeded(tensor: MergeTensor): number {
  const stored = tensor.factors.reduce((sum, { length }) => sum + length, 0)
  const blocks = tensor.blocks.map((block) => blockMemory(block, tensor.cols) + FIGURES_BYTES * block.count)
  return TILES * tileBytes(tensor) + stored + largest(blocks)
}

/**
 * Merges one tensor from its signed GETs into its signed PUT, or to nowhere where it has none. `onBytes` is told of the
 * bytes merged; a negative number takes back what an upload that failed had counted.
 */
export async function mergeTensor(tensor: MergeTensor, { core, signal, tiles }: Pick<JobContext, 'core' | 'signal'> & { tiles: TileSet }, onBytes: (count: number) => void): Promise<MergedTensor> {
  const buffers = tiles.get(tileBytes(tensor))
  // Signed GETs are for the whole of what they name, and a whole tensor asks for no less.
  const inputs = {
    source: () => download(tensor.source, tensor.length, signal),
    read: ({ get, length }: SignedBytes) => download(get, length, signal),
  }
  let counted = 0
  const count = (bytes: number) => {
    counted += bytes
    onBytes(bytes)
  }
  const produce = async (write: WritePiece): Promise<MergedTensor> => {
    count(-counted)
    const hash = createHash('sha256')
    const blocks: MergeFigures[] = []
    const paths = new Set<CorePath>()
    await namingTensor(tensor, async () => {
      let writing: Promise<void> = Promise.resolve()
      try {
        for await (const bytes of mergedRows(tensor, inputs, { core, buffers, onFigures: (figures, path) => void (blocks.push(figures), paths.add(path)) })) {
          await writing
          writing = write(bytes)
          writing.catch(() => undefined)
          hash.update(bytes)
          count(bytes.byteLength)
        }
        await writing
      } finally {
        await Promise.allSettled([writing])
      }
    })
    const { nonFinite, ...norms } = sumFigures(blocks)
    if (nonFinite > 0) {
      throw new JobFailure('non_finite_result', `Merging the tensor ${tensor.name} gives ${nonFinite} values that are NaN or infinite: the patches are too large for ${tensor.dtype} at these weights. Lower the weights or leave a patch out.`, false)
    }
    return { name: tensor.name, digest: `sha256:${hash.digest('hex')}`, length: tensor.length, ...norms, paths: [...paths].sort() }
  }
  return tensor.put === null ? produce(async () => {}) : upload(tensor.put, tensor.length, signal, produce)
}

/** Says of which tensor an error is, in words that end the job. */
async function namingTensor<T>(tensor: MergeTensor, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof CoreError) throw new JobFailure(`core_${error.status}`, `The tensor ${tensor.name} cannot be merged: ${error.message}.`, error.status === 'memory' || error.status === 'device')
    if (error instanceof SizeMismatchError) throw new JobFailure('input_changed', `The inputs of the tensor ${tensor.name} are not what the registry announced: ${error.message}.`, false)
    throw error
  }
}
