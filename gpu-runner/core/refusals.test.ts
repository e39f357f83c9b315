import { describe, expect, test } from 'vitest'
import { openAnalysisLibrary, type AnalysisHandle } from './analysis-library.ts'
import { loadCore } from './core.ts'
import { CoreError, openLibrary, PATHS, type CorePath } from './library.ts'
import { toBytes } from './reference.ts'
import type { Contribution, TensorSpec } from './tensor-merge.ts'

const library = await openLibrary()

describe('refusals', () => {
  const stored = (count: number, bits = 0x3f80) => ({ bytes: toBytes('BF16', new Array(count).fill(bits)), dtype: 'BF16' as const })
  const left = { ...stored(12), offset: 0, strides: [2, 1] as const }
  const right = { ...stored(10), offset: 0, strides: [5, 1] as const }
  const product = { kind: 'product' as const, left, right, rank: 2, scale: 1 }
  const dora = { ...product, kind: 'dora' as const, magnitude: stored(6), axis: 'rows' as const, weight: 1 }
  const dense = { kind: 'dense' as const, scale: 1, value: 'F32' as const, base: null }
  const good = { dtype: 'BF16' as const, rows: 6, cols: 5, contributions: [product] as Contribution[] }
  const having = (...contributions: Contribution[]): TensorSpec => ({ ...good, contributions })

  test.each<[string, TensorSpec, RegExp]>([
    ['an empty tensor', { ...good, rows: 0 }, /no elements/],
    ['sizes that overflow', { ...good, rows: 2 ** 52, cols: 2 ** 52 }, /too large/],
    ['a negative size', { ...good, cols: -5 }, /cols is -5/],
    ['an integer tensor', { ...good, dtype: 'I8' as never }, /cannot be merged/],
    ['a tensor of scales', { ...good, dtype: 'F8_E8M0' as never }, /cannot be merged/],
    ['no contribution', having(), /nothing is added/],
    ['rank 0', having({ ...product, rank: 0 }), /rank is 0/],
    ['a rank that overflows', having({ ...product, rank: 2 ** 53 - 1 }), /too large|has 12 elements/],
    ['a factor that is too small', having({ ...product, left: { ...left, ...stored(11) } }), /left factor has 11 elements, but 6 x 2 from 0 on with strides 2 and 1 reach to element 11/],
    ['a factor of half an element', having({ ...product, left: { ...left, bytes: new Uint8Array(25) } }), /25 bytes, which is no whole number of 2-byte elements/],
    ['an empty factor', having({ ...product, right: { ...right, ...stored(0) } }), /right factor is null|right factor has 0 elements/],
    ['a view that begins too late', having({ ...product, right: { ...right, offset: 1 } }), /right factor has 10 elements, but 2 x 5 from 1 on .* reach to element 10/],
    ['a stride that reaches too far', having({ ...product, left: { ...left, strides: [2, 2] } }), /reach to element 12/],
    ['strides that overflow', having({ ...product, left: { ...left, strides: [2 ** 53 - 1, 2 ** 53 - 1], offset: 2 ** 53 - 1 } }), /left factor has 12 elements/],
    ['strides that read elements again and again', having({ ...product, left: { ...left, ...stored(11), strides: [0, 0] } }), /left factor has 11 elements, but 6 x 2 are needed/],
    ['a rank from a few bytes', having({ ...product, rank: 2 ** 40, left: { ...left, strides: [1, 0] }, right: { ...right, strides: [0, 1] } }), /left factor has 12 elements, but 6 x 1099511627776 are needed/],
    ['a row that no thread can hold', { ...good, rows: 1, cols: 2 ** 24 + 1 }, /a row of 16777217 elements is longer than the 33554432 bytes/],
    ['a negative stride', having({ ...product, left: { ...left, strides: [-2, 1] } }), /stride of the left factor is -2/],
    ['a fractional offset', having({ ...product, left: { ...left, offset: 0.5 } }), /offset of the left factor is 0.5/],
    ['a float64 factor', having({ ...product, left: { ...left, bytes: new Uint8Array(96), dtype: 'F64' } }), /F64/],
    ['a float8 factor', having({ ...product, left: { ...left, dtype: 'F8_E4M3' } }), /left factor has dtype 4: only F32, F16 and BF16/],
    ['an integer factor', having({ ...product, left: { ...left, dtype: 'I8' } }), /I8/],
    ['a NaN in a factor', having({ ...product, left: { ...left, ...stored(12, 0x7fc0) } }), /left factor holds a NaN or an infinity at element 0/],
    ['an infinity in a factor', having({ ...product, right: { ...right, ...stored(10, 0xff80) } }), /right factor holds a NaN or an infinity/],
    ['an infinite scale', having({ ...product, scale: Infinity }), /scale/],
    ['a scale that is no float32', having({ ...product, scale: 0.1 }), /no float32/],
    ['too few magnitudes', having({ ...dora, magnitude: stored(5) }), /magnitude has 5 elements, but 1 x 6/],
    ['too many magnitudes', having({ ...dora, magnitude: stored(6), axis: 'columns' }), /magnitude has 6 values, but there are 5 columns/],
    ['an infinite magnitude', having({ ...dora, magnitude: stored(6, 0x7f80) }), /magnitude holds a NaN or an infinity at element 0/],
    ['a float64 magnitude', having({ ...dora, magnitude: { bytes: new Uint8Array(48), dtype: 'F64' } }), /magnitude is F64/],
    ['an integer magnitude', having({ ...dora, magnitude: { bytes: new Uint8Array(48), dtype: 'I64' } }), /magnitude is I64/],
    ['an unknown axis', having({ ...dora, axis: 'diagonal' as never }), /axis/],
    ['a weight of NaN', having({ ...dora, weight: NaN }), /weight is not finite/],
    ['a bad factor of DoRA', having({ ...dora, left: { ...left, ...stored(11) } }), /left factor has 11 elements/],
    ['an infinite scale of a difference', having({ ...dense, scale: -Infinity }), /scale is not finite/],
    ['an integer value', having({ ...dense, value: 'I32' }), /value is I32: only F32, F16, BF16, F64, F8_E4M3, F8_E5M2 can be merged/],
    ['a base of scales', having({ ...dense, base: 'F8_E8M0' }), /base is F8_E8M0/],
    ['a replacement beside a product', having(product, { kind: 'replace', value: 'BF16' }), /cannot be replaced as well/],
    ['a product beside a replacement', having({ kind: 'replace', value: 'BF16' }, product), /is replaced: nothing can be added/],
  ])('%s', async (_name, spec, message) => {
    const core = await loadCore()
    expect(() => core.tensor(spec)).toThrow(message)
    expect(() => core.tensor(spec)).toThrow(CoreError)
  })

  test('wrong rows, wrong buffers, overlap, and use after finish', async () => {
    const merge = (await loadCore()).tensor(good)
    const memory = new Uint8Array(200)
    const rows = (first: number, count: number, w = memory.subarray(0, count * 10), out = w) => merge.mergeRows(first, count, w, out)
    await expect(rows(5, 2)).rejects.toThrow(/outside the tensor's 6 rows/)
    await expect(rows(7, 1)).rejects.toThrow(/outside/)
    await expect(rows(0, 0)).rejects.toThrow(/outside|null/)
    await expect(rows(-1, 1)).rejects.toThrow(/firstRow is -1/)
    await expect(rows(0, 1.5)).rejects.toThrow(/rowCount is 1.5/)
    await expect(rows(0, 2, memory.subarray(0, 19))).rejects.toThrow(/2 rows take 20 bytes/)
    await expect(rows(0, 2, memory.subarray(0, 20), memory.subarray(10, 30))).rejects.toThrow(/overlaps/)
    await expect(rows(0, 2, memory.subarray(0, 20), new Uint8Array(21))).rejects.toThrow(/output 21/)
    await expect(merge.measureRows(0, 6, memory.subarray(0, 60))).rejects.toThrow(/no contribution to this tensor measures/)
    await expect(merge.mergeRows(0, 1, memory.subarray(0, 10), memory.subarray(0, 10), [memory])).rejects.toThrow(/1 operands were given where the contributions have 0/)
    const running = rows(0, 6)
    expect(() => merge.finish()).toThrow(/await that first/)
    await running
    merge.finish()
    await expect(rows(0, 6)).rejects.toThrow(/after finish/)
    expect(() => merge.finish()).toThrow(/called before/)
  })

  test('operands that are missing, of the wrong size, or overlap the output', async () => {
    const merge = (await loadCore()).tensor(having(dense, product, { ...dense, base: 'F16' }))
    const memory = new Uint8Array(400)
    const [w, four, four2, two] = [memory.subarray(0, 60), memory.subarray(60, 180), memory.subarray(180, 300), memory.subarray(300, 360)]
    const rows = (...operands: Uint8Array[]) => merge.mergeRows(0, 6, w, w, operands)
    await expect(rows()).rejects.toThrow(/0 operands were given where the contributions have 3/)
    await expect(rows(four, two, four2)).rejects.toThrow(/operand 1 has 60 bytes where 6 rows take 120/)
    await expect(rows(four, four2, new Uint8Array(0))).rejects.toThrow(/operand 2 (is null|has 0 bytes where 6 rows take 60)/)
    await expect(rows(memory.subarray(50, 170), four2, two)).rejects.toThrow(/output overlaps operand 0/)
    await rows(four, four2, two)
    merge.finish()
  })

  test('rows of a column-wise DoRA that are merged too soon, or measured out of order, twice, or too many', async () => {
    const merge = (await loadCore()).tensor(having({ ...dora, magnitude: stored(5), axis: 'columns' }))
    const w = toBytes('BF16', new Array(30).fill(0x3f80))
    const measure = (first: number, count: number, bytes = w.subarray(0, count * 10)) => merge.measureRows(first, count, bytes)
    const mergeRows = () => merge.mergeRows(0, 6, w, w)
    expect(merge.measures).toBe(true)
    await expect(measure(2, 1)).rejects.toThrow(/measured in order, each once: row 0 is next, not row 2/)
    await expect(measure(0, 7)).rejects.toThrow(/outside the tensor's 6 rows/)
    await expect(measure(0, 2, w)).rejects.toThrow(/2 rows take 20 bytes, but W has 60/)
    await measure(0, 2)
    await expect(measure(0, 2)).rejects.toThrow(/row 2 is next, not row 0/)
    await expect(mergeRows()).rejects.toThrow(/2 of 6 rows are measured/)
    await measure(2, 4)
    await expect(measure(5, 1)).rejects.toThrow(/row 6 is next/)
    await mergeRows()
    expect(merge.finish().nonFinite).toBe(0)
    await expect(measure(0, 1)).rejects.toThrow(/measureRows after finish/)
  })

  test('of the factors that an initialisation took out: too many threads, and room that is not theirs', async () => {
    const base = { bytes: new Uint8Array(new Float32Array(12).map((_, i) => i * i).buffer), dtype: 0 }
    const ask = (threads: number, room: readonly [number, number]) => library.initialFactors(0, base, 3, 4, 2, threads, new Float32Array(room[0]), new Float32Array(room[1]))
    await expect(ask(1025, [6, 8])).rejects.toThrow(/1025 threads: 1 to 1024 are possible/)
    await expect(ask(0, [6, 8])).rejects.toThrow(/0 threads/)
    for (const room of [[5, 8], [7, 8], [6, 7], [6, 9]] as const) await expect(ask(1, room)).rejects.toThrow(/the factors need 6 and 8 numbers of room/)
    await ask(1, [6, 8])
    await expect(library.initialFactors(0, base, 3, 4, 4, 1, new Float32Array(12), new Float32Array(16))).rejects.toThrow(/rank is 4, but a matrix of 3 x 4 has at most 3/)
  })

  test('an unknown path, a path that this processor lacks, and bad thread counts', async () => {
    await expect(loadCore({ path: 'sse9' as CorePath })).rejects.toThrow(/"sse9".*scalar, avx2, avx512/)
    for (const path of Object.keys(PATHS) as CorePath[]) {
      if (!library.supports(path)) await expect(loadCore({ path })).rejects.toThrow(/cannot run/)
    }
    for (const threads of [0, -1, 1.5, NaN, 1e6]) await expect(loadCore({ threads })).rejects.toThrow(/threads/)
  })
})


describe('handles of an analysis', async () => {
  const native = await openAnalysisLibrary()
  const [rows, cols] = [2000, 512]
  const bytes = new Uint8Array(rows * cols * 4)
  const matrix = { bytes: new Uint8Array(new Float32Array(4 * rows).fill(1).buffer), dtype: 0, offset: 0, strides: [1, 1] as const }

  test('that are none are refused everywhere, and freed twice without harm', async () => {
    const gone = native.create(0, 0, rows, cols)
    native.free(gone)
    native.free(gone)
    native.free(0x1000n)
    const tensor = library.createTensor(0, rows, cols)
    const refused = async (handle: AnalysisHandle, message: RegExp) => {
      expect(() => native.add(handle, matrix, matrix, 1, 1)).toThrow(message)
      expect(() => native.sample(handle, [0], bytes.subarray(0, 4 * cols))).toThrow(message)
      expect(() => native.matches(handle, 1)).toThrow(message)
      await expect(native.rows(handle, 'scalar', 1, 0, rows, bytes, bytes)).rejects.toThrow(message)
      await expect(native.finish(handle, 'scalar')).rejects.toThrow(message)
    }
    for (const handle of [gone, 0x1000n, tensor]) await refused(handle, /the analysis is none, or has been freed/)
    await refused(0n, /the analysis is null/)
    native.free(tensor)
    expect(library.figures(tensor).nonFinite).toBe(0)
    library.free(tensor)
  })

  test('that are freed while rows are added keep these to the end, or take none', async () => {
    for (let turn = 0; turn < 20; turn++) {
      const handle = native.create(0, 0, rows, cols)
      native.add(handle, matrix, matrix, 4, 1)
      const adding = native.rows(handle, 'scalar', 2, 0, rows, bytes, bytes).then(() => 'added', (error: Error) => error.message)
      await new Promise((resolve) => setTimeout(resolve, turn / 4))
      native.free(handle)
      expect(await adding).toMatch(/^added$|^the analysis is none, or has been freed$/)
    }
  })

  test('take one call at a time', async () => {
    const handle = native.create(0, 0, rows, cols)
    native.add(handle, matrix, matrix, 1, 1)
    const calls = await Promise.allSettled(Array.from({ length: 4 }, () => native.rows(handle, 'scalar', 1, 0, rows, bytes, bytes)))
    expect(calls.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const call of calls) if (call.status === 'rejected') expect(call.reason.message).toBe(`rows 0..+${rows} do not follow the ${rows} of ${rows} rows that have come`)
    await expect(native.rows(handle, 'scalar', 0, 0, rows, bytes, bytes)).rejects.toThrow(/0 threads: 1 to 1024 are possible/)
    await expect(native.rows(handle, 'scalar', 1025, 0, rows, bytes, bytes)).rejects.toThrow(/1025 threads/)
    native.free(handle)
  })

  test('take no products and no sample once rows have come, a sample once, and no numbers too large to be squared', async () => {
    const handle = native.create(0, 0, rows, cols)
    native.add(handle, matrix, matrix, 1, 1)
    native.sample(handle, [0], bytes.subarray(0, 4 * cols))
    expect(() => native.sample(handle, [1], bytes.subarray(0, 4 * cols))).toThrow(/sampled once, before the first have come/)
    await native.rows(handle, 'scalar', 1, 0, 1, bytes.subarray(0, 4 * cols), bytes.subarray(0, 4 * cols))
    expect(() => native.add(handle, matrix, matrix, 1, 1)).toThrow(/rows have come: no more can be added/)
    native.free(handle)
    const late = native.create(0, 0, rows, cols)
    await native.rows(late, 'scalar', 1, 0, 1, bytes.subarray(0, 4 * cols), bytes.subarray(0, 4 * cols))
    expect(() => native.sample(late, [1], bytes.subarray(0, 4 * cols))).toThrow(/before the first have come/)
    native.free(late)
    const large = native.create(3, 3, 1, 1)
    const value = new Uint8Array(Float64Array.of(1e200).buffer)
    await expect(native.rows(large, 'scalar', 1, 0, 1, value, value)).rejects.toThrow(/row 0 of the base holds a NaN, an infinity, or values too large to be squared/)
    native.free(large)
  })

  test('take no rank from a few bytes', () => {
    const handle = native.create(0, 0, rows, cols)
    const still = { ...matrix, strides: [1, 0] as const }
    expect(() => native.add(handle, still, still, 2 ** 40, 1)).toThrow(/left factor has 8000 elements, but 2000 x 1099511627776 are needed/)
    native.free(handle)
  })
})
