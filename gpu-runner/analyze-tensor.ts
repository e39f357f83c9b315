import { addSums, type AnalysisSums, type MeasuredTensor } from '../patch/analysis.ts'
import { DTYPE_BITS, type TargetDtype } from '../patch/dtype.ts'
import { largest } from '../patch/largest.ts'
import type { Block } from '../patch/merge-plan.ts'
import { rowwiseContributions, type LoadedFactor } from './core/block-contributions.ts'
import type { Core } from './core/core.ts'
import { analysisMemory } from './core/tensor-analysis.ts'

/** Bytes of rows that are measured at once, of base and target each. */
const TILE_BYTES = 2 * 1024 * 1024
/** One tile is read while the one before it is measured; each is of base and target. */
const TILES = 2

type AnalyzedBlock = Block<{ readonly dtype: TargetDtype }>

/** A tensor to measure, as patch/analysis-plan.ts plans it, wherever its bytes come from. */
export interface AnalyzedTensor {
  readonly name: string
  readonly dtype: TargetDtype
  readonly baseDtype: TargetDtype
  readonly cols: number
  readonly factors: readonly { readonly length: number }[]
  readonly runs: readonly { readonly block: AnalyzedBlock; readonly sample: readonly { readonly row: number }[] }[]
}

/** Rows in order. */
export interface RowSource {
  /** Fills the buffer with the next bytes. Throws where there are not as many. */
  fill(target: Uint8Array): Promise<void>
  close(): Promise<void>
}

/** Where the bytes of one tensor come from; runs are asked for one after the other. */
export interface TensorBytes {
  factors(): Promise<readonly LoadedFactor[]>
  /** The sampled rows of a run, one after the other. */
  sample(run: number): Promise<Uint8Array>
  base(run: number): RowSource
  target(run: number): RowSource
}

/** The buffers of one tensor in flight. They are used again for the next one: garbage of this size is collected late. */
export class AnalysisBuffers {
  readonly #buffers: Buffer[] = []

  /** Two buffers for each tile; those for a row longer than a tile are not kept. */
  get(bytes: number): readonly Buffer[] {
    if (bytes > TILE_BYTES) return Array.from({ length: 2 * TILES }, () => Buffer.allocUnsafeSlow(bytes))
    while (this.#buffers.length < 2 * TILES) this.#buffers.push(Buffer.allocUnsafeSlow(TILE_BYTES))
    return this.#buffers
  }
}

/** Most bytes that analyzeTensor holds for this tensor. */
export function memoryNeeded(tensor: AnalyzedTensor): number {
  const stored = tensor.factors.reduce((sum, { length }) => sum + length, 0)
  const held = tensor.runs.map(({ block }) => analysisMemory({ rank: rankOf(block), rows: block.count, cols: tensor.cols }))
  return 2 * TILES * Math.max(TILE_BYTES, rowBytes(tensor)) + stored + largest(held)
}

/** Measures one tensor, streaming. `onBytes` is told of the bytes of base and target that have been measured. */
export async function analyzeTensor(tensor: AnalyzedTensor, bytes: TensorBytes, { core, buffers, signal }: { core: Core; buffers: AnalysisBuffers; signal: AbortSignal }, onBytes: (count: number) => void): Promise<MeasuredTensor> {
  const factors = await bytes.factors()
  const sums: AnalysisSums[] = []
  for (const index of tensor.runs.keys()) sums.push(await analyzeRun({ tensor, index, bytes, factors, core, buffers, signal, onBytes }))
  return {
    name: tensor.name,
    rows: tensor.runs.reduce((rows, { block }) => rows + block.count, 0),
    cols: tensor.cols,
    rank: largest(tensor.runs.map(({ block }) => rankOf(block))),
    sums: addSums(sums),
  }
}

interface Run {
  readonly tensor: AnalyzedTensor
  readonly index: number
  readonly bytes: TensorBytes
  readonly factors: readonly LoadedFactor[]
  readonly core: Core
  readonly buffers: AnalysisBuffers
  readonly signal: AbortSignal
  onBytes(count: number): void
}

async function analyzeRun({ tensor, index, bytes, factors, core, buffers, signal, onBytes }: Run): Promise<AnalysisSums> {
  const { block, sample } = tensor.runs[index]!
  const { dtype, baseDtype, cols } = tensor
  const sampled = sample.length === 0 ? null : { rows: sample.map(({ row }) => row), bytes: await bytes.sample(index) }
  const contributions = rowwiseContributions(block, cols, factors)
  const analysis = core.analysis({ dtype, baseDtype, rows: block.count, cols, contributions, sample: sampled })
  const sources = { base: bytes.base(index), target: bytes.target(index) }
  const atOnce = Math.max(1, Math.floor(TILE_BYTES / rowBytes(tensor)))
  const tiles = buffers.get(rowBytes(tensor))
  const read = async (tile: number) => {
    const rows = Math.min(atOnce, block.count - tile * atOnce)
    const base = tiles[2 * (tile % TILES)]!.subarray(0, (rows * cols * DTYPE_BITS[baseDtype]) / 8)
    const target = tiles[2 * (tile % TILES) + 1]!.subarray(0, (rows * cols * DTYPE_BITS[dtype]) / 8)
    await Promise.all([sources.base.fill(base), sources.target.fill(target)])
    return { rows, base, target }
  }
  let reading = read(0)
  try {
    for (let tile = 0; tile * atOnce < block.count; tile++) {
      const { rows, base, target } = await reading
      signal.throwIfAborted()
      if ((tile + 1) * atOnce < block.count) {
        reading = read(tile + 1)
        reading.catch(() => undefined)
      }
      await analysis.addRows(tile * atOnce, rows, base, target)
      onBytes(base.byteLength + target.byteLength)
    }
    return await analysis.finish()
  } finally {
    await Promise.allSettled([reading])
    analysis.close()
    await Promise.allSettled([sources.base.close(), sources.target.close()])
  }
}

/** Bytes of a row in the wider of the two dtypes. */
function rowBytes({ cols, dtype, baseDtype }: AnalyzedTensor): number {
  return (cols * Math.max(DTYPE_BITS[dtype], DTYPE_BITS[baseDtype])) / 8
}

function rankOf({ contributions }: AnalyzedBlock): number {
  return contributions.reduce((sum, one) => sum + ('rank' in one ? one.rank : 0), 0)
}
