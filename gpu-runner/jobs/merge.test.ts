import { afterAll, expect, test } from 'vitest'
import { loadCore } from '../core/core.ts'
import { mergeReference, setElement, widthOf, type ReferenceContribution, type StoredMatrix } from '../core/reference.ts'
import { sha256Hex, startObjectServer } from '../object-server.ts'
import type { MergeBlock, MergeSpec, MergeTensor, Progress } from '../protocol.ts'
import { memoryBudget } from '../memory-budget.ts'
import type { MergeableDtype } from '../../patch/dtype.ts'
import { runMerge } from './merge.ts'

const server = await startObjectServer()
afterAll(() => server.close())
const core = await loadCore()
const signal = new AbortController().signal

let seed = 12345
function random(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return seed / 2 ** 31 - 1
}
function numbers(dtype: MergeableDtype, count: number): Uint8Array {
  const bytes = new Uint8Array(count * widthOf(dtype))
  for (let i = 0; i < count; i++) setElement({ dtype, bytes }, i, random())
  return bytes
}

type Product = Extract<MergeBlock['contributions'][number], { kind: 'product' }>

interface Case {
  name: string
  dtype: MergeableDtype
  rows: number
  cols: number
  contributions: Extract<ReferenceContribution, { kind: 'product' }>[]
  w: Uint8Array
}

function makeCase(name: string, dtype: MergeableDtype, rows: number, cols: number, ranks: number[], factorDtype: MergeableDtype = 'F32'): Case {
  return {
    name, dtype, rows, cols,
    w: numbers(dtype, rows * cols),
    contributions: ranks.map((rank, i) => ({
      kind: 'product',
      left: { dtype: factorDtype, bytes: numbers(factorDtype, rows * rank), offset: 0, strides: i % 2 === 1 ? [1, rows] : [rank, 1] },
      right: { dtype: factorDtype, bytes: numbers(factorDtype, rank * cols), offset: 0, strides: i % 2 === 0 ? [1, rank] : [cols, 1] },
      rank,
      scale: Math.fround(0.3 + i),
    })),
  }
}

/** Puts a case's bytes into the middle of objects, as tensors lie in files. */
function specTensor({ name, dtype, rows, cols, contributions, w }: Case): MergeTensor {
  const place = (path: string, bytes: Uint8Array) => {
    server.objects.set(path, Buffer.concat([Buffer.alloc(37), bytes, Buffer.alloc(11)]))
    return { request: server.get(path, { offset: 37, length: bytes.byteLength }), length: bytes.byteLength }
  }
  const source = place(`/${name}`, w)
  return {
    name, dtype, rows, cols, length: source.length, source: source.request,
    factors: contributions.flatMap(({ left, right }, i) => [left, right].map(({ bytes, dtype }, side) => {
      const { request, length } = place(`/${name}.${i}.${side}`, bytes)
      return { get: request, length, dtype: dtype as MergeableDtype }
    })),
    blocks: [{
      first: 0, count: rows,
      contributions: contributions.map(({ left, right, rank, scale }, i) => {
        const view = (factor: number, { offset, strides: [down, across] }: StoredMatrix) => ({ factor, offset, strides: [down, across] as [number, number] })
        return { kind: 'product', rank, scale, left: view(2 * i, left), right: view(2 * i + 1, right) }
      }),
    }],
    put: server.put(`/out/${name}`),
  }
}

function merge(tensors: MergeTensor[], progress: Progress[] = []) {
  const spec: MergeSpec = { kind: 'merge', rules: ['lora-f32/1'], derivation: 'd', tensors }
  return runMerge(spec, { core, signal, report: (now) => progress.push(now) })
}

test('tensors equal the reference, bit for bit, with their figures', async () => {
  const cases = [
    makeCase('bf16', 'BF16', 33, 40, [3, 2]), makeCase('f16', 'F16', 1, 65, [4]), makeCase('f32', 'F32', 50, 7, [1, 5, 2], 'F16'),
    makeCase('row', 'BF16', 17, 1, [1], 'BF16'),
  ]
  const progress: Progress[] = []
  const result = await merge(cases.map(specTensor), progress)
  expect(result.engine).toEqual({ name: 'portllm-core', version: core.version, path: core.path })
  expect(result.tensors.map(({ name }) => name)).toEqual(cases.map(({ name }) => name))
  cases.forEach((one, i) => {
    const expected = mergeReference(one)
    const bytes = expected.out
    expect(server.objects.get(`/out/${one.name}`)!.equals(bytes)).toBe(true)
    expect(result.tensors[i]).toMatchObject({ digest: `sha256:${sha256Hex(bytes)}`, length: bytes.byteLength })
    expect(result.tensors[i]!.patchNorm).toBeCloseTo(expected.patchNorm, 6)
    expect(result.tensors[i]!.realisedNorm).toBeCloseTo(expected.realisedNorm, 6)
  })
  const total = result.tensors.reduce((sum, { length }) => sum + length, 0)
  expect(progress.at(-1)).toEqual({ phase: 'merging', done: total, total, unit: 'bytes' })
})

/** Several tiles: the reference would take minutes, so rows are checked one by one against it. */
const tall = makeCase('tall', 'BF16', 3001, 3000, [2])

test('a tensor of many tiles equals the reference in every sampled row, also after its upload was cut', async () => {
  const tensor = specTensor(tall)
  server.faults.push({ method: 'PUT', path: '/out/tall', cutAfter: 9_000_000 }, { method: 'GET', path: '/tall', cutAfter: 5_000_000 })
  const progress: Progress[] = []
  const [merged] = (await merge([tensor], progress)).tensors
  const out = server.objects.get('/out/tall')!
  expect(merged!.digest).toBe(`sha256:${sha256Hex(out)}`)
  const product = tall.contributions[0]!
  for (const row of [0, 1, 347, 348, 349, 350, 697, 698, 699, 1046, 1047, 2791, 2792, 2999, 3000]) {
    const w = tall.w.slice(row * 6000, (row + 1) * 6000)
    const expected = mergeReference({ dtype: 'BF16', rows: 1, cols: 3000, w, contributions: [{ ...product, left: { ...product.left, offset: row * 2 } }] })
    expect(out.subarray(row * 6000, (row + 1) * 6000).equals(expected.out), `row ${row}`).toBe(true)
  }
  expect(server.requests.filter((line) => line.startsWith('PUT /out/tall'))).toHaveLength(2)
  expect(progress.at(-1)!.done).toBe(tensor.length)
  // The figures are of the second production alone.
  server.objects.delete('/out/tall')
  expect((await merge([tensor])).tensors).toEqual([merged])
})

test('blocks are merged each by its own factors, and rows without any pass bit for bit', async () => {
  const made = makeCase('blocks', 'BF16', 1500, 1000, [2, 3])
  const whole = { ...made, contributions: made.contributions.map((one) => ({ ...one, left: { ...one.left, strides: [one.rank, 1] as const } })) }
  whole.w.set([0x00, 0x80, 0x81, 0x7f, 0x80, 0xff])
  const tensor = specTensor(whole)
  const [first, second] = tensor.blocks[0]!.contributions as [Product, Product]
  const cut = { ...tensor, blocks: [
    { first: 0, count: 1, contributions: [] },
    { first: 1, count: 1199, contributions: [{ ...first, left: { ...first.left, offset: 2 } }] },
    { first: 1200, count: 300, contributions: [{ ...second, left: { ...second.left, offset: 3600 } }] },
  ] }
  const { tensors: [merged] } = await merge([cut])
  const out = server.objects.get('/out/blocks')!
  expect(out.subarray(0, 2000).equals(whole.w.subarray(0, 2000))).toBe(true)
  const [left, right] = whole.contributions.map((one) => mergeReference({ ...whole, contributions: [one] }).out)
  expect(out.subarray(2000, 2_400_000).equals(left!.subarray(2000, 2_400_000))).toBe(true)
  expect(out.subarray(2_400_000).equals(right!.subarray(2_400_000))).toBe(true)
  expect(merged!.patchNorm).toBeGreaterThan(0)
})

test('a result that overflows fails for good and names the tensor', async () => {
  const large = makeCase('large', 'F16', 4, 4, [1])
  const one = { ...large, contributions: [{ ...large.contributions[0]!, scale: 1e9 }] }
  await expect(merge([specTensor(one)])).rejects.toMatchObject({ code: 'non_finite_result', retryable: false, message: expect.stringMatching(/tensor large gives \d+ values/) })
})

test('bad factors and lengths fail for good', async () => {
  const nan = makeCase('nan', 'BF16', 4, 4, [1])
  setElement(nan.contributions[0]!.left, 2, Number.NaN)
  await expect(merge([specTensor(nan)])).rejects.toMatchObject({ code: 'core_nonfinite', retryable: false, message: expect.stringContaining('tensor nan') })
  const tensor = specTensor(makeCase('short', 'BF16', 4, 4, [1]))
  await expect(merge([{ ...tensor, length: 30 }])).rejects.toMatchObject({ code: 'invalid_spec', retryable: false })
  await expect(merge([{ ...tensor, source: server.get('/short', { offset: 37, length: 30 }) }])).rejects.toMatchObject({ code: 'input_changed', retryable: false })
})

test('a failure of one tensor stops the others', async () => {
  const good = Array.from({ length: 8 }, (_, i) => specTensor(makeCase(`good${i}`, 'BF16', 8, 8, [1])))
  const tensor = specTensor(makeCase('gone', 'BF16', 8, 8, [1]))
  server.objects.delete('/gone')
  await expect(merge([tensor, ...good])).rejects.toMatchObject({ code: 'storage_refused', retryable: true })
  expect(good.filter(({ name }) => server.objects.has(`/out/${name}`)).length).toBeLessThan(8)
})

test('the memory budget admits what fits, in order, and what is larger than the whole alone', async () => {
  const budget = memoryBudget(10)
  const log: string[] = []
  const task = async (name: string, bytes: number) => {
    const giveBack = await budget.take(bytes)
    log.push(`+${name}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
    log.push(`-${name}`)
    giveBack()
  }
  await Promise.all([task('a', 6), task('b', 4), task('huge', 99), task('c', 1)])
  expect(log).toEqual(['+a', '+b', '-a', '-b', '+huge', '-huge', '+c', '-c'])
})
