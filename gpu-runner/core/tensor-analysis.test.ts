import { expect, test } from 'vitest'
import type { AnalysisSums } from '../../patch/analysis.ts'
import type { TargetDtype } from '../../patch/dtype.ts'
import { openAnalysisLibrary } from './analysis-library.ts'
import { loadCore, type Core } from './core.ts'
import { CORE_DTYPES, openLibrary, PATHS, type CorePath } from './library.ts'
import { randomAnalysis, type AnalysisCase, type RandomAnalysis } from './random-analysis.ts'
import { random } from './random-merge.ts'
import { element } from './reference.ts'
import type { AnalysisSpec } from './tensor-analysis.ts'

const library = await openLibrary()
const paths = (Object.keys(PATHS) as CorePath[]).filter((path) => library.supports(path))

function centred(seed: number): () => number {
  const next = random(seed)
  return () => next() - 0.5
}

async function measure(core: Core, { spec, w, evolved }: RandomAnalysis, tile = spec.rows): Promise<AnalysisSums> {
  const analysis = core.analysis(spec)
  try {
    for (let first = 0; first < spec.rows; first += tile) {
      const count = Math.min(tile, spec.rows - first)
      const part = ({ bytes }: { bytes: Uint8Array }) => bytes.slice((first * bytes.length) / spec.rows, ((first + count) * bytes.length) / spec.rows)
      await analysis.addRows(first, count, part(w), part(evolved))
    }
    return await analysis.finish()
  } finally {
    analysis.close()
  }
}

/** The definitions, with P written out. */
function naive({ spec: { rows, cols, sample }, w, evolved, products, transpose }: RandomAnalysis) {
  const p = new Float64Array(rows * cols)
  for (const { left, right, rank, scale } of products) {
    for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) for (let k = 0; k < rank; k++) {
      p[i * cols + j]! += scale * (transpose ? left[k * rows + i]! * right[j * rank + k]! : left[i * rank + k]! * right[k * cols + j]!)
    }
  }
  const d = evolved.values.map((value, index) => value - w.values[index]!)
  const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((sum, value, index) => sum + value * b[index]!, 0)
  const row = (values: ArrayLike<number>, i: number) => Array.from(values).slice(i * cols, (i + 1) * cols)
  const cosine = (a: number[], b: number[]) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
  const matches = (sample?.rows ?? []).map((i) => {
    const others = Array.from({ length: rows }, (_, j) => j).filter((j) => j !== i)
    return { same: cosine(row(w.values, i), row(evolved.values, i)), best: Math.max(...others.map((j) => cosine(row(w.values, i), row(evolved.values, j)))) }
  })
  const column = (values: ArrayLike<number>, j: number) => Array.from({ length: rows }, (_, i) => values[i * cols + j]!)
  const readers = basis(products.flatMap(({ right, rank }) => Array.from({ length: rank }, (_, k) => Array.from({ length: cols }, (_, j) => right[transpose ? j * rank + k : k * cols + j]!))))
  const writers = basis(products.flatMap(({ left, rank }) => Array.from({ length: rank }, (_, k) => Array.from({ length: rows }, (_, i) => left[transpose ? k * rows + i : i * rank + k]!))))
  const along = (directions: readonly number[][], vectors: readonly number[][]) => directions.reduce((sum, q) => vectors.reduce((inner, vector) => inner + dot(q, vector) ** 2, sum), 0)
  const [allRows, allColumns] = [Array.from({ length: rows }, (_, i) => i), Array.from({ length: cols }, (_, j) => j)]
  return {
    baseSquared: dot(w.values, w.values), driftSquared: dot(d, d), patchSquared: dot(p, p), inner: dot(d, p), matches,
    driftReadSquared: along(readers, allRows.map((i) => row(d, i))), baseReadSquared: along(readers, allRows.map((i) => row(w.values, i))),
    driftWriteSquared: along(writers, allColumns.map((j) => column(d, j))), baseWriteSquared: along(writers, allColumns.map((j) => column(w.values, j))),
  }
}

/** Orthonormal vectors that span what these do, which are independent. */
function basis(vectors: readonly number[][]): number[][] {
  const made: number[][] = []
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)
  for (const vector of vectors) {
    let rest = vector
    for (const q of [...made, ...made]) {
      const length = dot(q, rest)
      rest = rest.map((value, i) => value - length * q[i]!)
    }
    const length = Math.sqrt(dot(rest, rest))
    if (length > 1e-9) made.push(rest.map((value) => value / length))
  }
  return made
}

const CASES: AnalysisCase[] = [
  { rows: 7, cols: 5, ranks: [2], base: 'F32', target: 'F32', factors: 'F32', seed: 1 },
  { rows: 37, cols: 301, ranks: [3, 5], base: 'BF16', target: 'BF16', factors: 'BF16', seed: 2 },
  { rows: 70, cols: 33, ranks: [4], base: 'F16', target: 'BF16', factors: 'F16', seed: 3, transpose: true },
  { rows: 21, cols: 50, ranks: [3], base: 'F64', target: 'F8_E4M3', factors: 'F32', seed: 8 },
  { rows: 1, cols: 40, ranks: [1], base: 'BF16', target: 'F16', factors: 'F32', seed: 4 },
]

test.each(CASES)('the sums are those of the definitions, with P written out: %o', async (one) => {
  const built = randomAnalysis(one)
  const sums = await measure(await loadCore(), built, 11)
  const { matches, ...expected } = naive(built)
  for (const [name, value] of Object.entries(expected)) {
    expect(Math.abs(sums[name as keyof AnalysisSums] - value) / Math.abs(value), name).toBeLessThan(1e-12)
  }
  expect(sums.rowsSampled).toBe(matches.length)
  expect(sums.sameRowCosine).toBeCloseTo(matches.reduce((sum, { same }) => sum + same, 0), 12)
  expect(sums.bestOtherCosine).toBeCloseTo(matches.reduce((sum, { best }) => sum + best, 0), 12)
})

test('paths, threads and the cut of the rows do not show', async () => {
  const built = randomAnalysis({ rows: 203, cols: 777, ranks: [9, 6], base: 'BF16', target: 'F16', factors: 'F32', seed: 5 })
  const expected = await measure(await loadCore({ path: 'scalar', threads: 1 }), built)
  for (const path of paths) {
    for (const [threads, tile] of [[1, 203], [2, 203], [3, 50], [8, 1]] as const) {
      expect(await measure(await loadCore({ path, threads }), built, tile), `${path}, ${threads} threads, tiles of ${tile}`).toEqual(expected)
    }
  }
})

test('values of every dtype are widened exactly', async () => {
  const native = await openAnalysisLibrary()
  const unit = { bytes: new Uint8Array(Float32Array.of(1).buffer), dtype: 0, offset: 0, strides: [1, 1] as const }
  const squared = async (dtype: number, bytes: Uint8Array, path: CorePath) => {
    const handle = native.create(dtype, dtype, 1, 1)
    try {
      native.add(handle, unit, unit, 1, 1)
      await native.rows(handle, path, 1, 0, 1, bytes, bytes)
      return (await native.finish(handle, path)).baseSquared
    } finally {
      native.free(handle)
    }
  }
  const little: [TargetDtype, number[][]][] = [
    ['F16', [[0, 0], [1, 0], [0xff, 3], [0, 4], [0xff, 0x7b], [1, 0x80], [0xff, 0xfb], [0, 0x3c]]],
    ['BF16', [[0, 0], [1, 0x30], [0x7f, 0x5f], [1, 0x80], [0x80, 0x3f]]],
    ['F8_E4M3', Array.from({ length: 127 }, (_, byte) => [byte])], ['F8_E5M2', Array.from({ length: 124 }, (_, byte) => [byte | 0x80])],
    ['F32', [[0xdb, 0x0f, 0x49, 0x40]]], ['F64', [[0x18, 0x2d, 0x44, 0x54, 0xfb, 0x21, 9, 0x40]]],
  ]
  for (const path of paths) {
    for (const [dtype, values] of little) {
      for (const value of values) {
        const bytes = Uint8Array.from(value)
        expect(await squared(CORE_DTYPES[dtype]!, bytes, path), `${path} ${dtype} ${value}`).toBe(element({ dtype, bytes }, 0) ** 2)
      }
    }
  }
})

test('dependent and empty factors give as many directions as they have', async () => {
  const native = await openAnalysisLibrary()
  const rows = 6, cols = 9
  const matrix = (values: number[], width: number) => ({ bytes: new Uint8Array(Float64Array.from(values).buffer), dtype: 3, offset: 0, strides: [width, 1] as const })
  const rest = new Uint8Array(rows * cols * 4)
  const ranks = async (left: number[], right: number[], rank: number) => {
    const handle = native.create(0, 0, rows, cols)
    try {
      native.add(handle, matrix(left, rank), matrix(right, cols), rank, 1)
      await native.rows(handle, 'scalar', 1, 0, rows, rest, rest)
      const { writeRank, readRank, patchSquared, patchSpectral } = await native.finish(handle, 'scalar')
      return { writeRank, readRank, patchSquared, patchSpectral }
    } finally {
      native.free(handle)
    }
  }
  const next = centred(6)
  const column = Array.from({ length: rows }, next), right = Array.from({ length: 3 * cols }, next)
  // The second column is the first, the third a multiple of it.
  const dependent = column.flatMap((value) => [value, value, -3 * value])
  const sum = Array.from({ length: cols }, (_, j) => right[j]! + right[cols + j]! - 3 * right[2 * cols + j]!)
  const norm = column.reduce((total, value) => total + value ** 2, 0) * sum.reduce((total, value) => total + value ** 2, 0)
  const found = await ranks(dependent, right, 3)
  expect(found).toMatchObject({ writeRank: 1, readRank: 3 })
  expect(found.patchSquared / norm).toBeCloseTo(1, 12)
  expect(found.patchSpectral ** 2 / norm).toBeCloseTo(1, 12)
  expect(await ranks(new Array(3 * rows).fill(0), right, 3)).toEqual({ writeRank: 0, readRank: 3, patchSquared: 0, patchSpectral: 0 })
})

test('the bases are orthonormal to rounding, however nearly dependent the factors are', async () => {
  const native = await openAnalysisLibrary()
  const next = centred(9)
  const matrix = (values: number[], width: number) => ({ bytes: new Uint8Array(Float64Array.from(values).buffer), dtype: 3, offset: 0, strides: [width, 1] as const })
  const x = Array.from({ length: 40 }, next)
  for (const distance of [1e-6, 1e-10, 1e-13]) {
    const handle = native.create(3, 3, 40, 1)
    try {
      native.add(handle, matrix(x.flatMap((value) => [value, value + distance * next()]), 2), matrix([1, 1], 1), 2, 1)
      const w = new Uint8Array(Float64Array.from(x).buffer)
      await native.rows(handle, 'scalar', 1, 0, 40, w, w)
      // W is the first column itself, so that its projection keeps all of its length.
      const { writeRank, baseSquared, baseWriteSquared } = await native.finish(handle, 'scalar')
      expect(writeRank).toBe(2)
      expect(Math.abs(baseWriteSquared / baseSquared - 1)).toBeLessThan(1e-14)
    } finally {
      native.free(handle)
    }
  }
})

test('matches name the other row that is nearest; rows of zeros, of either, match nothing', async () => {
  const native = await openAnalysisLibrary()
  const [rows, cols] = [5, 4]
  const bytes = (values: readonly (readonly number[])[]) => new Uint8Array(Float64Array.from(values.flat()).buffer)
  const w = bytes([[1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 3, 0], [1, 1, 1, 1], [2, 0, 0, 1]])
  const evolved = bytes([[1, 2, 0, 0.5], [5, 0, 0, 1], [0, 0, 0, 0], [0, 2, 6, 0.1], [2, 0, 0, 1]])
  const unit = { bytes: new Uint8Array(Float64Array.of(1, 1, 1, 1, 1).buffer), dtype: 3, offset: 0, strides: [1, 1] as const }
  const handle = native.create(3, 3, rows, cols)
  native.add(handle, unit, unit, 1, 1)
  native.sample(handle, [0, 1, 2, 4], Buffer.concat([w.subarray(0, 96), w.subarray(128)]))
  await native.rows(handle, 'scalar', 1, 0, 2, w.subarray(0, 64), evolved.subarray(0, 64))
  await native.rows(handle, 'scalar', 1, 2, 3, w.subarray(64), evolved.subarray(64))
  const [first, none, second, third] = [0, 3, 6, 9].map((at) => [...native.matches(handle, 4).subarray(at, at + 3)])
  expect(first).toEqual([expect.closeTo(5 / Math.sqrt(5 * 5.25), 12), expect.closeTo(5 / Math.sqrt(5 * 26), 12), 1])
  expect(none).toEqual([NaN, NaN, NaN])
  expect(second).toEqual([NaN, expect.closeTo(20 / Math.sqrt(10 * 40.01), 12), 3])
  expect(third).toEqual([expect.closeTo(1, 12), expect.closeTo(11 / Math.sqrt(5 * 26), 12), 1])
  expect(() => native.matches(handle, 3)).toThrow(/there are 4 sampled rows/)
  native.free(handle)
})

test('what the rounding loses is what the merge itself reports', async () => {
  const core = await loadCore()
  const built = randomAnalysis({ rows: 30, cols: 90, ranks: [3, 2], base: 'F32', target: 'BF16', factors: 'F16', seed: 10 })
  const { mergedSquared, lostSquared, nonFinite } = await measure(core, built, 7)
  const merge = core.tensor(built.spec)
  await merge.mergeRows(0, 30, built.evolved.bytes, new Uint8Array(built.evolved.bytes.length))
  const figures = merge.finish()
  expect({ mergedSquared, lostSquared, nonFinite }).toEqual({ mergedSquared: figures.patchNorm ** 2, lostSquared: figures.residualNorm ** 2, nonFinite: figures.nonFinite })
  expect(lostSquared).toBeGreaterThan(0)
})

test('what cannot be measured is refused', async () => {
  const core = await loadCore()
  const built = randomAnalysis({ rows: 8, cols: 6, ranks: [2], base: 'BF16', target: 'BF16', factors: 'F32', seed: 7 })
  const { spec, w, evolved, products } = built
  const [first] = products.map(({ contribution }) => contribution)
  const bad: [string, AnalysisSpec, RegExp][] = [
    ['a factor that is too short', { ...spec, contributions: [{ ...first!, left: { ...first!.left, bytes: first!.left.bytes.subarray(4) } }] }, /left factor of 8 x 2 does not lie within its 60 bytes/],
    ['an infinity in a factor', { ...spec, contributions: [{ ...first!, right: { ...first!.right, bytes: new Uint8Array(new Float32Array(12).fill(Infinity).buffer) } }] }, /right factor holds a NaN or an infinity/],
    ['a sample of the wrong size', { ...spec, sample: { rows: [1, 2], bytes: new Uint8Array(12) } }, /another size/],
    ['a sample out of order', { ...spec, sample: { rows: [2, 1], bytes: new Uint8Array(24) } }, /ascending/],
    ['a row twice in the sample', { ...spec, sample: { rows: [1, 1], bytes: new Uint8Array(24) } }, /ascending/],
    ['a scale that is no number', { ...spec, contributions: [{ ...first!, scale: NaN }] }, /scale is not finite/],
    ['rank 0', { ...spec, contributions: [{ ...first!, rank: 0 }] }, /rank is 0/],
    ['a base of scales', { ...spec, baseDtype: 'F8_E8M0' as never }, /base has dtype 6/],
    ['a sample beyond the end', { ...spec, sample: { rows: [8], bytes: new Uint8Array(12) } }, /not rows of the tensor/],
    ['what has no low rank', { ...spec, contributions: [{ kind: 'replace', value: 'BF16' }] }, /kind replace has no low rank/],
    ['an integer base', { ...spec, baseDtype: 'I8' as never }, /base has dtype -1/],
    ['no rows', { ...spec, rows: 0 }, /no elements/],
  ]
  for (const [name, wrong, message] of bad) expect(() => core.analysis(wrong), name).toThrow(message)

  const broken = Uint8Array.from(evolved.bytes)
  broken.set([0xc0, 0x7f], 2 * (6 * 3 + 1))
  const opened = core.analysis(spec)
  await expect(opened.addRows(1, 2, w.bytes.slice(0, 24), evolved.bytes.slice(0, 24))).rejects.toThrow(/do not follow the 0 of 8 rows/)
  await expect(opened.addRows(0, 8, w.bytes.slice(0, 24), evolved.bytes)).rejects.toThrow(/8 rows take 96 and 96 bytes, but the base has 24/)
  await expect(opened.finish()).rejects.toThrow(/0 of 8 rows/)
  await expect(opened.addRows(0, 8, w.bytes, broken)).rejects.toThrow(/row 3 of the target holds a NaN/)
  await expect(opened.addRows(0, 8, w.bytes, evolved.bytes)).rejects.toThrow(/earlier call/)
  opened.close()
  opened.close()
  await expect(opened.addRows(0, 8, w.bytes, evolved.bytes)).rejects.toThrow(/after close/)
})
