import { DTYPE_BITS } from '../../patch/dtype.ts'
import type { Block } from '../../patch/merge-plan.ts'
import { packedBytes } from '../../patch/packed-bytes.ts'
import { freeBuffer } from '../free-buffer.ts'
import { operandsOf, rowwiseContributions, type LoadedFactor } from './block-contributions.ts'
import type { Core } from './core.ts'
import { CoreError } from './library.ts'
import type { Located, PlannedTensor } from './merged-rows.ts'
import type { TensorMerge } from './tensor-merge.ts'

/** Fills `into` with the bytes of an operand from `offset` on. */
export type ReadOperand<Bytes> = (operand: Bytes, offset: number, into: Uint8Array) => Promise<void>

interface Opened<Bytes> { readonly block: Block<Bytes>; readonly merge: TensorMerge }

/** A planned tensor with its factors packed: any of its rows can be merged, at any time and in any order. */
export interface PackedTensor<Bytes> {
  /** Merges rows `[firstRow, firstRow + rowCount)` in place, over blocks; those without contributions stay as they are. */
  mergeRows(firstRow: number, rowCount: number, w: Uint8Array, read: ReadOperand<Bytes>): Promise<void>
  /**
   * The same rows into `out`, W being read from the open file, where row 0 begins at byte `offset`: one turn of a thread
   * where reading first takes two. False, with nothing done, where rows lie in a block without contributions.
   */
  mergeFileRows(firstRow: number, rowCount: number, file: number, offset: number, out: Uint8Array, read: ReadOperand<Bytes>): Promise<boolean>
  /** Frees the factors. No mergeRows may be running. */
  close(): void
}

/**
 * For rows that are asked for at any time, where mergedRows is for one run of them. Packs the factors of all blocks, which
 * have been read. No figures are taken. Throws CoreError, also for what cannot be merged row by row (DoRA over columns, the
 * initial factors of PiSSA and OLoRA).
 */
export function packTensor<Bytes extends Located>(core: Core, { dtype, rows, cols, blocks }: PlannedTensor<Bytes>, factors: readonly LoadedFactor[]): PackedTensor<Bytes> {
  const opened: Opened<Bytes>[] = []
  const close = () => opened.splice(0).forEach(({ merge }) => merge.finish())
  try {
    for (const block of blocks) {
      if (block.contributions.length === 0) continue
      const merge = core.tensor({ dtype, rows: block.count, cols, contributions: rowwiseContributions(block, cols, factors) }, { figures: false })
      opened.push({ block, merge })
      if (merge.measures) throw new CoreError('invalid', 'DoRA over columns needs all rows before the first one can be merged')
    }
  } catch (error) {
    close()
    throw error
  }
  const rowBytes = (cols * DTYPE_BITS[dtype]) / 8
  if (blocks.reduce((sum, { count }) => sum + count, 0) !== rows) throw new Error('the blocks do not cover the rows')

  /** Calls `merge` with each block's share of the rows, its place in their bytes, and its operands. */
  async function inBlocks(firstRow: number, rowCount: number, rows: Uint8Array, read: ReadOperand<Bytes>, merge: (opened: Opened<Bytes>, from: number, part: Uint8Array, operands: readonly Uint8Array[]) => Promise<void>): Promise<void> {
    for (const one of opened) {
      const { block } = one
      const [from, to] = [Math.max(firstRow, block.first), Math.min(firstRow + rowCount, block.first + block.count)]
      if (from >= to) continue
      const operands = await Promise.all(operandsOf(block).map(async (operand) => {
        const operandRow = (cols * DTYPE_BITS[operand.dtype]) / 8
        const bytes = Buffer.allocUnsafeSlow((to - from) * operandRow)
        await read(operand, (from - block.first) * operandRow, bytes)
        return bytes
      }))
      await merge(one, from, rows.subarray((from - firstRow) * rowBytes, (to - firstRow) * rowBytes), operands)
      operands.forEach(freeBuffer)
    }
  }

  return {
    mergeRows: (firstRow, rowCount, w, read) =>
      inBlocks(firstRow, rowCount, w, read, ({ block, merge }, from, part, operands) => merge.mergeRows(from - block.first, part.byteLength / rowBytes, part, part, operands)),
    async mergeFileRows(firstRow, rowCount, file, offset, out, read) {
      if (blocks.some(({ first, count, contributions }) => contributions.length === 0 && first < firstRow + rowCount && first + count > firstRow)) return false
      await inBlocks(firstRow, rowCount, out, read, ({ block, merge }, from, part, operands) =>
        merge.mergeFileRows(from - block.first, part.byteLength / rowBytes, file, offset + from * rowBytes, part, operands))
      return true
    },
    close,
  }
}

/** What a packed tensor costs in memory, about. */
export function packedTensorBytes({ cols, blocks }: Pick<PlannedTensor<Located>, 'cols' | 'blocks'>): number {
  return blocks.reduce((sum, { count, contributions }) => sum + packedBytes(count, cols, contributions), 0)
}
