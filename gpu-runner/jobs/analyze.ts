import { analysisBytes } from '../../patch/analysis-plan.ts'
import type { MeasuredTensor } from '../../patch/analysis.ts'
import { DTYPE_BITS } from '../../patch/dtype.ts'
import { AnalysisBuffers, analyzeTensor, memoryNeeded, type RowSource, type TensorBytes } from '../analyze-tensor.ts'
import { byteReader } from '../byte-reader.ts'
import { CoreError } from '../core/library.ts'
import { download, downloadBytes, SizeMismatchError } from '../download.ts'
import { JobFailure } from '../job-failure.ts'
import { memoryBudget } from '../memory-budget.ts'
import type { AnalyzeResult, AnalyzeSpec, AnalyzeTensor, SignedRange } from '../protocol.ts'
import type { JobContext } from './job-context.ts'

/** Buffers, factors and projections of all tensors in flight together, whatever the model. */
const MEMORY_BYTES = 64 * 1024 * 1024
const MAX_TENSORS_IN_FLIGHT = 2

/** Measures every tensor of an analysis. Throws JobFailure. */
export async function runAnalyze(spec: AnalyzeSpec, { core, signal, report }: JobContext): Promise<AnalyzeResult> {
  const started = performance.now()
  for (const tensor of spec.tensors) checkLengths(tensor)
  const total = analysisBytes(spec.tensors)
  let done = 0
  const onBytes = (count: number) => report({ phase: 'analyzing', done: (done += count), total, unit: 'bytes' })
  const failed = new AbortController()
  const anySignal = AbortSignal.any([signal, failed.signal])
  const budget = memoryBudget(MEMORY_BYTES)
  const smallest = Math.floor(MEMORY_BYTES / MAX_TENSORS_IN_FLIGHT)
  const free: AnalysisBuffers[] = []
  const measured = await Promise.all(spec.tensors.map(async (tensor): Promise<MeasuredTensor> => {
    const giveBack = await budget.take(Math.max(smallest, memoryNeeded(tensor)))
    const buffers = free.pop() ?? new AnalysisBuffers()
    try {
      anySignal.throwIfAborted()
      return await analyzeTensor(tensor, signedBytes(tensor, anySignal), { core, buffers, signal: anySignal }, onBytes)
    } catch (error) {
      const named = namingTensor(tensor, error)
      failed.abort(named)
      throw named
    } finally {
      free.push(buffers)
      giveBack()
    }
  }))
  return { engine: { name: 'portllm-core', version: core.version, path: core.path }, measured, seconds: (performance.now() - started) / 1000 }
}

function checkLengths({ name, cols, dtype, baseDtype, runs }: AnalyzeTensor): void {
  for (const { block, base, target, sample } of runs) {
    const expected = (values: typeof dtype, rows: number) => (rows * cols * DTYPE_BITS[values]) / 8
    const right = base.length === expected(baseDtype, block.count) && target.length === expected(dtype, block.count) && sample.every(({ base: row }) => row.length === expected(baseDtype, 1))
    if (!right) throw new JobFailure('invalid_spec', `The rows of the tensor ${name} have other lengths than ${block.count} × ${cols} of ${baseDtype} and ${dtype} need.`, false)
  }
}

function signedBytes({ factors, runs }: AnalyzeTensor, signal: AbortSignal): TensorBytes {
  return {
    factors: () => Promise.all(factors.map(async ({ get, length, dtype }) => ({ bytes: await downloadBytes(get, length, signal), dtype }))),
    sample: async (run) => Buffer.concat(await Promise.all(runs[run]!.sample.map(({ base }) => downloadBytes(base.get, base.length, signal)))),
    base: (run) => rowSource(runs[run]!.base, signal),
    target: (run) => rowSource(runs[run]!.target, signal),
  }
}

function rowSource({ get, length }: SignedRange, signal: AbortSignal): RowSource {
  const reader = byteReader(download(get, length, signal))
  return { fill: async (target) => void (await reader.fill(target)), close: () => reader.close() }
}

/** The same error, in words that end the job where it is about the tensor. */
function namingTensor({ name }: AnalyzeTensor, error: unknown): unknown {
  if (error instanceof CoreError) return new JobFailure(`core_${error.status}`, `The tensor ${name} cannot be analyzed: ${error.message}.`, error.status === 'memory')
  if (error instanceof SizeMismatchError) return new JobFailure('input_changed', `The inputs of the tensor ${name} are not what the registry announced: ${error.message}.`, false)
  return error
}
