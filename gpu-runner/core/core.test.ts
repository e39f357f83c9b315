import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MERGEABLE_DTYPES, type MergeableDtype } from '../../patch/dtype.ts'
import { loadCore, type Core } from './core.ts'
import { CoreError, openLibrary, PATHS, type CorePath } from './library.ts'
import { decode, encode, fma32, fma32Exact, mergeReference, toBytes, type ReferenceAddend, type StoredMatrix } from './reference.ts'
import type { Addend } from './tensor-merge.ts'

const library = await openLibrary()
const paths = (Object.keys(PATHS) as CorePath[]).filter((path) => library.supports(path))

/** A small generator, so that a shape's numbers come from one seed. */
function random(seed: number): () => number {
  let state = seed >>> 0 || 1
  return () => {
    state ^= state << 13
    state >>>= 0
    state ^= state >>> 17
    state ^= state << 5
    return (state >>>= 0) / 2 ** 32
  }
}

type Values = 'ordinary' | 'tiny' | 'huge' | 'special'

/** Bits of `count` elements: `ordinary` like weights, `tiny` near and below the smallest normal, `huge` near overflow. */
function elements(dtype: MergeableDtype, count: number, values: Values, next: () => number): number[] {
  const [tiny, huge] = dtype === 'F16' ? [2 ** -20, 30000] : [2 ** -130, 2 ** 126]
  const specials = dtype === 'F32' ? [0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc01234, 0xff812345, 1, 0x7f7fffff]
    : dtype === 'F16' ? [0, 0x8000, 0x7c00, 0xfc00, 0x7e01, 0xfd00, 1, 0x7bff] : [0, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0xff81, 1, 0x7f7f]
  return Array.from({ length: count }, () => {
    if (values === 'special' && next() < 0.3) return specials[Math.floor(next() * specials.length)]!
    const size = values === 'tiny' ? tiny : values === 'huge' ? huge : 0.05
    return encode(dtype, Math.fround((next() * 2 - 1) * size))
  })
}

interface Case {
  dtype: MergeableDtype
  rows: number
  cols: number
  ranks: number[]
  values: Values
  factorDtype: MergeableDtype
  transposes: [boolean, boolean]
  seed: number
}

function build(spec: Case) {
  const next = random(spec.seed)
  const w = elements(spec.dtype, spec.rows * spec.cols, spec.values, next)
  const factorValues = spec.values === 'tiny' && spec.factorDtype !== 'F16' ? 'tiny' : 'ordinary'
  const reference: ReferenceAddend[] = spec.ranks.map((rank, p) => {
    const factor = (count: number, transpose: boolean, values: Values): StoredMatrix => ({ dtype: spec.factorDtype, bits: elements(spec.factorDtype, count, values, next), transpose })
    return {
      left: factor(spec.rows * rank, spec.transposes[0], factorValues),
      right: factor(rank * spec.cols, spec.transposes[1], 'ordinary'),
      rank,
      scale: Math.fround(spec.values === 'huge' ? 2 ** 100 * (p + 1) : 1.7 / (p + 1)),
    }
  })
  const addends: Addend[] = reference.map(({ left, right, rank, scale }) => ({
    left: { ...left, bytes: toBytes(left.dtype, left.bits) },
    right: { ...right, bytes: toBytes(right.dtype, right.bits) },
    rank,
    scale,
  }))
  return { w, bytes: toBytes(spec.dtype, w), reference, addends }
}

const cases: fc.Arbitrary<Case> = fc.record({
  dtype: fc.constantFrom(...MERGEABLE_DTYPES),
  rows: fc.integer({ min: 1, max: 23 }),
  cols: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 60, max: 150 }), fc.integer({ min: 180, max: 330 })),
  ranks: fc.array(fc.integer({ min: 1, max: 19 }), { minLength: 1, maxLength: 3 }),
  values: fc.constantFrom<Values>('ordinary', 'ordinary', 'tiny', 'huge', 'special'),
  factorDtype: fc.constantFrom(...MERGEABLE_DTYPES),
  transposes: fc.tuple(fc.boolean(), fc.boolean()),
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
})

async function mergeAll(core: Core, spec: Case, addends: readonly Addend[], w: Uint8Array) {
  const merge = core.tensor({ dtype: spec.dtype, rows: spec.rows, cols: spec.cols, addends })
  const out = new Uint8Array(w.length)
  await merge.mergeRows(0, spec.rows, w, out)
  return { out, figures: merge.finish() }
}

describe('the reference', () => {
  test('fma32 equals exact integer arithmetic, with cancellation, subnormals and ties', () => {
    const float = fc.oneof(
      fc.float({ noNaN: true, noDefaultInfinity: true }),
      fc.integer({ min: -(2 ** 24), max: 2 ** 24 }).map((n) => Math.fround(n * 2 ** -12)),
      fc.integer({ min: -4, max: 4 }).map((n) => n * 2 ** -149),
    )
    fc.assert(fc.property(float, float, float, fc.integer({ min: -2, max: 2 }), (a, b, c, ulps) => {
      const nearlyCancelling = Math.fround(-a * b) + ulps * 2 ** -149
      for (const addend of [c, Math.fround(nearlyCancelling)].filter(Number.isFinite)) {
        expect(Object.is(fma32(a, b, addend), fma32Exact(a, b, addend)), `${a} * ${b} + ${addend}`).toBe(true)
      }
    }), { numRuns: 3000 })
    // Ties go to even; just above a tie goes up, although float64 cannot hold the sum.
    expect(fma32(1, 1, 2 ** -24)).toBe(1)
    expect(fma32(2 ** -24, 1 + 2 ** -23, 1)).toBe(1 + 2 ** -23)
    expect(fma32(2 ** -24 + 2 ** -47, 1 + 2 ** -23, 1)).toBe(1 + 2 ** -23)
    expect(fma32(-(2 ** -60), 2 ** -60, 1 + 2 ** -23)).toBe(1 + 2 ** -23)
  })

  test('encode is the inverse of decode for every 16-bit value that is no NaN', () => {
    for (const dtype of ['F16', 'BF16'] as const) {
      for (let bits = 0; bits < 0x10000; bits++) {
        const value = decode(dtype, bits)
        if (!Number.isNaN(value) && encode(dtype, value) !== bits) throw new Error(`${dtype} ${bits}`)
      }
    }
  })
})

test.each(paths)('%s equals the reference bit for bit, figures included', async (path) => {
  const core = await loadCore({ path, threads: 1 })
  await fc.assert(fc.asyncProperty(cases, async (spec) => {
    const { w, bytes, reference, addends } = build(spec)
    const expected = mergeReference(spec.dtype, spec.rows, spec.cols, w, reference)
    const { out, figures } = await mergeAll(core, spec, addends, bytes)
    expect(Buffer.from(out).equals(toBytes(spec.dtype, expected.out))).toBe(true)
    const { out: _, ...expectedFigures } = expected
    expect(figures).toEqual(expectedFigures)
  }), { numRuns: 200 })
}, 60_000)

test('ranks 1 to 300 agree with the reference', async () => {
  for (const [index, rank] of [1, 2, 63, 64, 65, 255, 256, 300].entries()) {
    const spec: Case = { dtype: 'BF16', rows: 6, cols: 70, ranks: [rank], values: 'ordinary', factorDtype: 'F32', transposes: [false, false], seed: index + 1 }
    const { w, bytes, reference, addends } = build(spec)
    const expected = toBytes('BF16', mergeReference('BF16', 6, 70, w, reference).out)
    for (const path of paths) {
      const { out } = await mergeAll(await loadCore({ path }), spec, addends, bytes)
      expect(Buffer.from(out).equals(expected), `${path}, rank ${rank}`).toBe(true)
    }
  }
})

/** Contributions that make exact ties, near-ties and overflow at some magnitude of W, for both 16-bit dtypes. */
const CONTRIBUTIONS = [0, 2 ** -8, -3 * 2 ** -8, 2 ** -11, 2 ** -25, -3 * 2 ** -25, 2 ** -134, 2 ** 119, 16, -0.3]

test('every bf16 and f16 value of W rounds right: ties, subnormals, overflow, NaNs made canonical', async () => {
  for (const dtype of ['BF16', 'F16'] as const) {
    const w = Array.from({ length: 0x10000 }, (_, bits) => bits)
    const exponent = dtype === 'BF16' ? 0x7f80 : 0x7c00
    for (const contribution of CONTRIBUTIONS) {
      const t = Math.fround(contribution)
      // t = +0 + 1·t, so −0 never comes out of a zero contribution: −0 + +0 = +0.
      const expectedBits = w.map((bits) => encode(dtype, Math.fround(decode(dtype, bits) + t)))
      const expected = toBytes(dtype, expectedBits)
      const factor = (value: number) => ({ bytes: new Uint8Array(new Float32Array(256).fill(value).buffer), dtype: 'F32' as const, transpose: false })
      for (const path of paths) {
        const merge = (await loadCore({ path })).tensor({ dtype, rows: 256, cols: 256, addends: [{ left: factor(1), right: factor(t), rank: 1, scale: 1 }] })
        const out = new Uint8Array(0x20000)
        await merge.mergeRows(0, 256, toBytes(dtype, w), out)
        expect(Buffer.from(out).equals(expected), `${path} ${dtype} + ${t}`).toBe(true)
        expect(merge.finish().nonFinite).toBe(expectedBits.filter((bits) => (bits & exponent) === exponent).length)
      }
    }
  }
}, 30_000)

test('bytes and figures do not depend on threads, tiling, order of rows, path, or working in place', async () => {
  const spec: Case = { dtype: 'BF16', rows: 1203, cols: 1111, ranks: [17, 300], values: 'special', factorDtype: 'BF16', transposes: [true, false], seed: 77 }
  const { bytes, addends } = build(spec)
  const rowBytes = spec.cols * 2
  const expected = await mergeAll(await loadCore({ path: paths.at(-1)!, threads: 1 }), spec, addends, bytes)
  expect(expected.figures.nonFinite).toBeGreaterThan(0)

  for (const [path, threads, tile] of [[paths.at(-1)!, 2, 1203], [paths.at(-1)!, 7, 1203], [paths.at(-1)!, 3, 101], [paths[1] ?? 'scalar', 2, 257], ['scalar', 2, 1203]] as const) {
    const merge = (await loadCore({ path, threads })).tensor({ dtype: spec.dtype, rows: spec.rows, cols: spec.cols, addends })
    const out = Uint8Array.from(bytes)
    const starts = Array.from({ length: Math.ceil(spec.rows / tile) }, (_, i) => i * tile).reverse()
    await Promise.all(starts.map((first) => {
      const count = Math.min(tile, spec.rows - first)
      const rows = out.subarray(first * rowBytes, (first + count) * rowBytes)
      return merge.mergeRows(first, count, rows, rows)
    }))
    expect(Buffer.from(out).equals(expected.out), `${path}, ${threads} threads, tiles of ${tile}`).toBe(true)
    expect(merge.finish()).toEqual(expected.figures)
  }
}, 30_000)

test('non-temporal stores of large outputs give the same bytes', async () => {
  const spec: Case = { dtype: 'BF16', rows: 4100, cols: 2080, ranks: [2], values: 'ordinary', factorDtype: 'F32', transposes: [false, false], seed: 5 }
  const next = random(9)
  const f = (count: number) => ({ bytes: toBytes('F32', elements('F32', count, 'ordinary', next)), dtype: 'F32' as const, transpose: false })
  const addends = [{ left: f(spec.rows * 2), right: f(spec.cols * 2), rank: 2, scale: 0.5 }]
  const w = new Uint8Array(spec.rows * spec.cols * 2)
  for (let i = 0; i < w.length; i += 2) w[i + 1] = 0x3c + (i % 7)
  const inPlace = Uint8Array.from(w)
  const merge = (await loadCore()).tensor({ ...spec, addends })
  const out = new Uint8Array(w.length)
  await merge.mergeRows(0, spec.rows, w, out)
  await merge.mergeRows(0, spec.rows, inPlace, inPlace)
  expect(Buffer.from(out).equals(inPlace)).toBe(true)
  expect(Buffer.from(out).equals(w)).toBe(false)
  merge.finish()
})

describe('refusals', () => {
  const factor = (count: number, bits = 0x3f80) => ({ bytes: toBytes('BF16', new Array(count).fill(bits)), dtype: 'BF16' as const, transpose: false })
  const good = { dtype: 'BF16' as const, rows: 6, cols: 5, addends: [{ left: factor(12), right: factor(10), rank: 2, scale: 1 }] }

  test.each([
    ['an empty tensor', { ...good, rows: 0 }, /no elements/],
    ['sizes that overflow', { ...good, rows: 2 ** 52, cols: 2 ** 52 }, /too large/],
    ['a negative size', { ...good, cols: -5 }, /cols is -5/],
    ['no addend', { ...good, addends: [] }, /nothing is added/],
    ['rank 0', { ...good, addends: [{ ...good.addends[0]!, rank: 0 }] }, /rank is 0/],
    ['a rank that overflows', { ...good, addends: [{ ...good.addends[0]!, rank: 2 ** 53 - 1 }] }, /too large|needs? /],
    ['a factor of the wrong size', { ...good, addends: [{ ...good.addends[0]!, left: factor(11) }] }, /left factor has 22 bytes where 6 x 2 elements need 24/],
    ['an empty factor', { ...good, addends: [{ ...good.addends[0]!, right: factor(0) }] }, /right factor/],
    ['a float64 factor', { ...good, addends: [{ ...good.addends[0]!, left: { bytes: new Uint8Array(96), dtype: 'F64' as const, transpose: false } }] }, /F64/],
    ['an integer factor', { ...good, addends: [{ ...good.addends[0]!, left: { bytes: new Uint8Array(12), dtype: 'I8' as const, transpose: false } }] }, /I8/],
    ['a NaN in a factor', { ...good, addends: [{ ...good.addends[0]!, left: factor(12, 0x7fc0) }] }, /left factor holds a NaN/],
    ['an infinity in a factor', { ...good, addends: [{ ...good.addends[0]!, right: factor(10, 0xff80) }] }, /right factor holds a NaN or an infinity/],
    ['an infinite scale', { ...good, addends: [{ ...good.addends[0]!, scale: Infinity }] }, /scale/],
    ['a scale that is no float32', { ...good, addends: [{ ...good.addends[0]!, scale: 0.1 }] }, /no float32/],
    ['an integer tensor', { ...good, dtype: 'I8' as never }, /cannot be merged/],
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
    const running = rows(0, 6)
    expect(() => merge.finish()).toThrow(/await it first/)
    await running
    merge.finish()
    await expect(rows(0, 6)).rejects.toThrow(/after finish/)
    expect(() => merge.finish()).toThrow(/called before/)
  })

  test('an unknown path, a path that this processor lacks, and bad thread counts', async () => {
    await expect(loadCore({ path: 'sse9' as CorePath })).rejects.toThrow(/"sse9".*scalar, avx2, avx512/)
    for (const path of Object.keys(PATHS) as CorePath[]) {
      if (!library.supports(path)) await expect(loadCore({ path })).rejects.toThrow(/cannot run/)
    }
    for (const threads of [0, -1, 1.5, NaN, 1e6]) await expect(loadCore({ threads })).rejects.toThrow(/threads/)
  })
})

test('countNonFinite finds every NaN and infinity, at any place and size', async () => {
  const core = await loadCore()
  const bad = {
    F32: [0x7f800000, 0xff800001], F16: [0x7c00, 0xfe00], BF16: [0x7f80, 0xffc0], F8_E4M3: [0x7f, 0xff], F8_E5M2: [0x7c, 0xfd], F8_E8M0: [0xff],
  }
  const good = { F32: 0x7f7fffff, F16: 0x7bff, BF16: 0xff7f, F8_E4M3: 0x7e, F8_E5M2: 0x7b, F8_E8M0: 0xfe }
  for (const dtype of Object.keys(bad) as (keyof typeof bad)[]) {
    const width = dtype === 'F32' ? 4 : dtype.startsWith('F8') ? 1 : 2
    for (const count of [0, 1, 239, 240, 241, 5000, 70_001]) {
      const bytes = Buffer.alloc(count * width)
      const next = random(count + width)
      let expected = 0
      for (let i = 0; i < count; i++) {
        const isBad = next() < 0.4 || count >= 5000
        if (isBad) expected++
        bytes.writeUIntLE(isBad ? bad[dtype][i % bad[dtype].length]! : good[dtype], i * width, width)
      }
      expect(await core.countNonFinite(bytes, dtype), `${dtype} × ${count}`).toBe(expected)
    }
  }
  const doubles = Float64Array.from([1, NaN, -Infinity, Number.MAX_VALUE, 5e-324])
  expect(await core.countNonFinite(new Uint8Array(doubles.buffer), 'F64')).toBe(2)
  expect(await core.countNonFinite(new Uint8Array(Float32Array.from([1, NaN, 0, 0]).buffer), 'C64')).toBe(1)
  expect(await core.countNonFinite(new Uint8Array([255, 255]), 'I16')).toBe(0)
  await expect(core.countNonFinite(new Uint8Array(3), 'F16')).rejects.toThrow(/3 bytes/)
})
