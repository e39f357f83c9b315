import { afterAll, expect, test } from 'vitest'
import { analysisBytes } from '../../patch/analysis-plan.ts'
import { addSums } from '../../patch/analysis.ts'
import type { MergeableDtype } from '../../patch/dtype.ts'
import { loadCore } from '../core/core.ts'
import { setElement, widthOf } from '../core/reference.ts'
import { startObjectServer } from '../object-server.ts'
import type { AnalyzeTensor, Progress } from '../protocol.ts'
import { runAnalyze } from './analyze.ts'

const server = await startObjectServer()
afterAll(() => server.close())
const core = await loadCore()

let seed = 4711
function values(dtype: MergeableDtype, count: number): Uint8Array {
  const bytes = new Uint8Array(count * widthOf(dtype))
  for (let i = 0; i < count; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    setElement({ dtype, bytes }, i, seed / 2 ** 31 - 1)
  }
  return bytes
}

interface Run { rows: number; rank: number; left: Uint8Array; right: Uint8Array; base: Uint8Array; target: Uint8Array; sample: number[] }
interface Case { name: string; dtype: MergeableDtype; baseDtype: MergeableDtype; cols: number; runs: Run[] }

function makeCase(name: string, cols: number, runs: { rows: number; rank: number; sample: number[] }[], dtype: MergeableDtype = 'BF16', baseDtype: MergeableDtype = 'BF16'): Case {
  return {
    name, dtype, baseDtype, cols,
    runs: runs.map(({ rows, rank, sample }) => ({
      rows, rank, sample, left: values('F32', rows * rank), right: values('F32', rank * cols), base: values(baseDtype, rows * cols), target: values(dtype, rows * cols),
    })),
  }
}

/** Puts a case's bytes into the middle of objects, as tensors lie in files. */
function specTensor({ name, dtype, baseDtype, cols, runs }: Case): AnalyzeTensor {
  const place = (path: string, bytes: Uint8Array) => {
    server.objects.set(`/${name}/${path}`, Buffer.concat([Buffer.alloc(37), bytes, Buffer.alloc(11)]))
    return { get: server.get(`/${name}/${path}`, { offset: 37, length: bytes.byteLength }), length: bytes.byteLength }
  }
  const width = (run: Run) => run.base.byteLength / run.rows
  return {
    name, dtype, baseDtype, cols,
    factors: runs.flatMap(({ left, right }, i) => [left, right].map((bytes, side) => ({ ...place(`${i}.${side}`, bytes), dtype: 'F32' as const }))),
    runs: runs.map((run, i) => ({
      block: { first: 0, count: run.rows, contributions: [{ kind: 'product', rank: run.rank, scale: 0.5, left: { factor: 2 * i, offset: 0, strides: [run.rank, 1] }, right: { factor: 2 * i + 1, offset: 0, strides: [cols, 1] } }] },
      target: place(`target.${i}`, run.target),
      base: place(`base.${i}`, run.base),
      sample: run.sample.map((row) => ({ row, base: place(`row.${i}.${row}`, run.base.subarray(row * width(run), (row + 1) * width(run))) })),
    })),
  }
}

function analyze(tensors: AnalyzeTensor[], progress: Progress[] = [], signal = new AbortController().signal) {
  return runAnalyze({ kind: 'analyze', analysis: 'a', tensors }, { core, signal, report: (now) => progress.push(now) })
}

/** The same without a network, in one piece. */
async function directly({ dtype, baseDtype, cols, runs }: Case) {
  return addSums(await Promise.all(runs.map(async ({ rows, rank, left, right, base, target, sample }) => {
    const width = base.byteLength / rows
    const factor = (bytes: Uint8Array, columns: number) => ({ bytes, dtype: 'F32' as const, offset: 0, strides: [columns, 1] as const })
    const analysis = core.analysis({
      dtype, baseDtype, rows, cols, contributions: [{ kind: 'product', left: factor(left, rank), right: factor(right, cols), rank, scale: 0.5 }],
      sample: sample.length === 0 ? null : { rows: sample, bytes: Buffer.concat(sample.map((row) => base.subarray(row * width, (row + 1) * width))) },
    })
    await analysis.addRows(0, rows, base, Uint8Array.from(target))
    return analysis.finish()
  })))
}

test('the sums are those of the core over whole tensors, several tiles and several runs long', async () => {
  const cases = [
    makeCase('small', 24, [{ rows: 9, rank: 2, sample: [1, 5] }], 'F32', 'BF16'),
    makeCase('long', 1500, [{ rows: 900, rank: 5, sample: [450] }]),
    makeCase('experts', 40, [{ rows: 6, rank: 2, sample: [0] }, { rows: 6, rank: 3, sample: [3] }]),
    makeCase('vector', 64, [{ rows: 1, rank: 1, sample: [] }]),
  ]
  const progress: Progress[] = []
  const spec = cases.map(specTensor)
  const result = await analyze(spec, progress)
  expect(result.engine).toEqual({ name: 'portllm-core', version: core.version, path: core.path })
  expect(result.measured.map(({ name, rows, cols, rank }) => [name, rows, cols, rank])).toEqual([['small', 9, 24, 2], ['long', 900, 1500, 5], ['experts', 12, 40, 3], ['vector', 1, 64, 1]])
  for (const [index, one] of cases.entries()) expect(result.measured[index]!.sums, one.name).toEqual(await directly(one))
  expect(progress.at(-1)).toEqual({ phase: 'analyzing', done: analysisBytes(spec), total: analysisBytes(spec), unit: 'bytes' })
}, 30_000)

test('a job that cannot be done says which tensor is at fault, and whether trying again may help', async () => {
  const good = makeCase('good', 24, [{ rows: 9, rank: 2, sample: [] }])
  const broken = makeCase('broken', 24, [{ rows: 9, rank: 2, sample: [] }])
  broken.runs[0]!.base.set([0x80, 0x7f], 48 * 4)
  await expect(analyze([specTensor(good), specTensor(broken)])).rejects.toMatchObject({ code: 'core_nonfinite', retryable: false, message: expect.stringMatching(/^The tensor broken cannot be analyzed: row 4 of the base holds/) })

  const wrong = specTensor(good)
  await expect(analyze([{ ...wrong, cols: 25 }])).rejects.toMatchObject({ code: 'invalid_spec' })
  server.objects.set('/good/target.0', Buffer.alloc(100))
  await expect(analyze([wrong])).rejects.toMatchObject({ code: 'input_changed', message: expect.stringContaining('tensor good') })

  const stop = new AbortController()
  server.stalled.add('/good/base.0')
  setTimeout(() => stop.abort(new Error('told to stop')), 50)
  await expect(analyze([specTensor(good)], [], stop.signal)).rejects.toThrow('told to stop')
})
