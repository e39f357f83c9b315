import { mkdir, open, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { loadCore, type Contribution, type FactorBytes } from '../../gpu-runner/core/core.ts'
import { ALL_LINEARS, LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel } from '../../bench/llama-model.ts'
import { peakMemory, type PeakMemory } from '../../bench/peak-memory.ts'
import { effectiveScale } from '../../patch/derivation.ts'
import { headerLength, parseHeader } from '../../patch/safetensors.ts'

const RUN = join(import.meta.dirname, '../../bench/merge-run.ts')
const IDLE = join(import.meta.dirname, '../../bench/idle.ts')
export const SHAPE = LLAMA_SHAPES['7b']

export interface SparseMerge {
  readonly adapter: string
  readonly bytes: number
  readonly bytesOnDisk: number
  readonly seconds: number
  readonly merging: PeakMemory
  /** Node with the same modules loaded. */
  readonly idle: PeakMemory
}

/** A model of the shape of Llama-2-7B, 13.5 GB in bf16, whose tensors are holes: it takes no space on the disk. */
export async function writeSparseModel(folder: string): Promise<void> {
  await writeLlamaModel(folder, SHAPE, { sparse: true })
}

/** Merges an adapter of `layers` layers into complete files, and checks one tensor of the output, and that holes stay holes. */
export async function mergeSparseModel(model: string, folder: string, { rank, targets, layers }: { rank: number; targets: readonly string[]; layers: number }): Promise<SparseMerge> {
  const [adapter, output] = [join(folder, 'adapter'), join(folder, 'output')]
  await mkdir(folder, { recursive: true })
  await writeLlamaAdapter(adapter, SHAPE, { rank, alpha: 2 * rank, targets, layers })
  const idle = await peakMemory([IDLE])
  const start = performance.now()
  const merging = await peakMemory([RUN, model, adapter, output, 'complete'])
  const seconds = (performance.now() - start) / 1000
  await checkTensor(adapter, output, rank)
  const files = await Promise.all([1, 2, 3].map((shard) => stat(join(output, `model-0000${shard}-of-00003.safetensors`))))
  return {
    adapter: `${targets.length === ALL_LINEARS.length ? 'all linears' : targets.map((name) => name.replace('_proj', '')).join(',')} r=${rank}, ${layers} of ${SHAPE.layers} layers`,
    bytes: files.reduce((sum, { size }) => sum + size, 0), bytesOnDisk: files.reduce((sum, { blocks }) => sum + blocks * 512, 0), seconds, merging, idle,
  }
}

/** The first layer's q_proj, merged once more from zeros. */
async function checkTensor(adapter: string, output: string, rank: number): Promise<void> {
  const name = 'model.layers.0.self_attn.q_proj'
  const bytes = await readFile(join(adapter, 'adapter_model.safetensors'))
  const header = parseHeader(bytes.subarray(0, headerLength(bytes.subarray(0, 8), bytes.length)), bytes.length)
  const factor = (letter: string, strides: readonly [number, number]): FactorBytes => {
    const { begin, end } = header.tensors.find((tensor) => tensor.name === `base_model.model.${name}.lora_${letter}.weight`)!
    return { bytes: bytes.subarray(header.dataOffset + begin, header.dataOffset + end), dtype: 'F32', offset: 0, strides }
  }
  const rows = SHAPE.hidden
  const contributions: Contribution[] = [{ kind: 'product', left: factor('B', [rank, 1]), right: factor('A', [rows, 1]), rank, scale: effectiveScale(1, 2) }]
  const tensor = (await loadCore()).tensor({ dtype: 'BF16', rows, cols: rows, contributions })
  const expected = Buffer.alloc(rows * rows * 2)
  await tensor.mergeRows(0, rows, expected, expected)
  tensor.finish()
  const file = await open(join(output, 'model-00001-of-00003.safetensors'))
  const prefix = Buffer.alloc(8)
  await file.read(prefix, 0, 8, 0)
  const { size } = await file.stat()
  const head = Buffer.alloc(headerLength(prefix, size))
  await file.read(head, 0, head.length, 0)
  const merged = parseHeader(head, size)
  const { begin } = merged.tensors.find((one) => one.name === `${name}.weight`)!
  const actual = Buffer.alloc(expected.length)
  await file.read(actual, 0, actual.length, merged.dataOffset + begin)
  await file.close()
  if (!actual.equals(expected)) throw new Error(`${name} is not what it should be`)
}
