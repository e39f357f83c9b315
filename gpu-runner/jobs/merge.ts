import { DTYPE_BITS } from '../../patch/dtype.ts'
import { JobFailure } from '../job-failure.ts'
import { memoryBudget } from '../memory-budget.ts'
import type { MergeResult, MergeSpec, MergeTensor } from '../protocol.ts'
import type { JobContext } from './job-context.ts'
import { memoryNeeded, mergeTensor, TileSet } from './merge-tensor.ts'

/** Buffers of all tensors in flight together, whatever the model. */
const MEMORY_BYTES = 48 * 1024 * 1024
const MAX_TENSORS_IN_FLIGHT = 3

/** Computes every changed tensor of a derivation. Throws JobFailure; nothing is kept of an attempt that failed. */
export async function runMerge(spec: MergeSpec, { core, signal, report }: JobContext): Promise<MergeResult> {
  const started = performance.now()
  for (const tensor of spec.tensors) checkLength(tensor)
  const total = spec.tensors.reduce((sum, { length }) => sum + length, 0)
  let done = 0
  const onBytes = (count: number) => report({ phase: 'merging', done: (done += count), total, unit: 'bytes' })
  const failed = new AbortController()
  const context = { core, signal: AbortSignal.any([signal, failed.signal]) }
  const budget = memoryBudget(MEMORY_BYTES)
  const smallest = Math.floor(MEMORY_BYTES / MAX_TENSORS_IN_FLIGHT)
  const free: TileSet[] = []
  const tensors = await Promise.all(spec.tensors.map(async (tensor) => {
    const giveBack = await budget.take(Math.max(smallest, memoryNeeded(tensor)))
    const tiles = free.pop() ?? new TileSet()
    try {
      context.signal.throwIfAborted()
      return await mergeTensor(tensor, { ...context, tiles }, onBytes)
    } catch (error) {
      failed.abort(error)
      throw error
    } finally {
      free.push(tiles)
      giveBack()
    }
  }))
  return {
    engine: { name: 'portllm-core', version: core.version, path: core.path },
    tensors,
    seconds: (performance.now() - started) / 1000,
  }
}

function checkLength({ name, dtype, rows, cols, length }: MergeTensor): void {
  const expected = (rows * cols * DTYPE_BITS[dtype]) / 8
  if (length !== expected) throw new JobFailure('invalid_spec', `The tensor ${name} of ${rows} × ${cols} ${dtype} has ${expected} bytes, the job says ${length}.`, false)
}
