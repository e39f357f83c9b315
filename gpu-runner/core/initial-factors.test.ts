import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { TargetDtype } from '../../patch/dtype.ts'
import { loadCore, type InitialFactors, type InitialFactorsSpec } from './core.ts'
import { CoreError } from './library.ts'
import { random } from './random-merge.ts'
import { element, setElement, widthOf, type Stored } from './reference.ts'

const core = await loadCore({ threads: 2 })

/** Row-major numbers of a matrix, in float64. */
type Matrix = readonly Float64Array[]

function matrix(rows: number, cols: number, value: (i: number, j: number) => number): Matrix {
  return Array.from({ length: rows }, (_, i) => Float64Array.from({ length: cols }, (_, j) => value(i, j)))
}

function stored(dtype: TargetDtype, values: Matrix): Stored {
  const all = { dtype, bytes: new Uint8Array(values.length * values[0]!.length * widthOf(dtype)) }
  values.forEach((row, i) => row.forEach((value, j) => setElement(all, i * row.length + j, value)))
  return all
}

/** An orthonormal basis, one vector a row: of the discrete cosine transform. */
function cosines(size: number): Matrix {
  return matrix(size, size, (k, i) => Math.sqrt((k === 0 ? 1 : 2) / size) * Math.cos((Math.PI * (i + 0.5) * k) / size))
}

/** The matrix with these singular values, or the product of its first `rank` parts. */
function withSingularValues(rows: number, cols: number, values: readonly number[], rank = values.length): Matrix {
  const [left, right] = [cosines(rows), cosines(cols)]
  return matrix(rows, cols, (i, j) => {
    let sum = 0
    for (let k = 0; k < rank; k++) sum += values[k]! * left[k]![i]! * right[k]![j]!
    return sum
  })
}

function productOf({ left, right, rank }: InitialFactors, rows: number, cols: number): Matrix {
  const [l, r] = [left, right].map(({ bytes }) => new Float32Array(bytes.buffer))
  return matrix(rows, cols, (i, j) => {
    let sum = 0
    for (let k = 0; k < rank; k++) sum += l![i * rank + k]! * r![k * cols + j]!
    return sum
  })
}

function distance(a: Matrix, b: Matrix): number {
  const norm = (value: (i: number, j: number) => number) => Math.sqrt(a.reduce((sum, row, i) => row.reduce((inner, _, j) => inner + value(i, j) ** 2, sum), 0))
  return norm((i, j) => a[i]![j]! - b[i]![j]!) / norm((i, j) => b[i]![j]!)
}

function ask(method: InitialFactorsSpec['method'], { dtype, bytes }: Stored, rows: number, cols: number, rank: number, asking = core): Promise<InitialFactors> {
  return asking.initialFactors({ method, base: bytes, dtype, rows, cols, rank })
}

const decaying = (count: number) => Array.from({ length: count }, (_, k) => 3 * (k + 1) ** -0.7)

test.each([
  ['wide', 60, 90, decaying(60)],
  ['tall', 90, 60, decaying(60)],
  ['square, all of its rank', 8, 8, decaying(8)],
  ['one row', 1, 40, [2]],
  ['one column', 40, 1, [2]],
  ['large', 180, 150, decaying(150)],
  ['not a whole number of blocks', 30, 30, decaying(30)],
  ['each singular value four times', 80, 90, Array.from({ length: 80 }, (_, k) => 5 - (k >> 2) / 8)],
  ['of a lower rank', 50, 70, [4, 2, 1]],
  ['tiny numbers', 30, 30, decaying(30).map((s) => s * 2 ** -100)],
  ['huge numbers', 30, 30, decaying(30).map((s) => s * 2 ** 100)],
])('PiSSA takes out the largest singular values: %s', async (_name, rows, cols, values) => {
  for (const rank of [1, 4, 8].filter((rank) => rank <= Math.min(rows, cols) && values[rank - 1] !== values[rank])) {
    const factors = await ask('pissa', stored('F32', withSingularValues(rows, cols, values)), rows, cols, rank)
    expect(distance(productOf(factors, rows, cols), withSingularValues(rows, cols, values, rank)), `rank ${rank}`).toBeLessThan(3e-7)
  }
})

test.each(['F32', 'F16', 'BF16'] as const)('OLoRA takes out what the first columns span: %s', async (dtype) => {
  const next = random(4)
  const [rows, cols, rank] = [70, 45, 6]
  const base = stored(dtype, matrix(rows, cols, () => next() - 0.5))
  const value = (i: number, j: number) => element(base, i * cols + j)
  const span: Float64Array[] = []
  for (let k = 0; k < rank; k++) {
    const column = Float64Array.from({ length: rows }, (_, i) => value(i, k))
    for (const earlier of [...span, ...span]) {
      const along = earlier.reduce((sum, v, i) => sum + v * column[i]!, 0)
      column.forEach((v, i) => (column[i] = v - along * earlier[i]!))
    }
    const length = Math.hypot(...column)
    span.push(column.map((v) => v / length))
  }
  const expected = matrix(rows, cols, (i, j) => span.reduce((sum, q) => sum + q[i]! * q.reduce((along, v, n) => along + v * value(n, j), 0), 0))
  expect(distance(productOf(await ask('olora', base, rows, cols, rank), rows, cols), expected)).toBeLessThan(3e-7)
})

test('the bits do not depend on threads, and are the same on every machine', async () => {
  const next = random(9)
  const digests: Record<string, string> = {}
  for (const [rows, cols, dtype] of [[130, 97, 'BF16'], [97, 600, 'F16'], [300, 1100, 'F32']] as const) {
    const base = stored(dtype, matrix(rows, cols, () => (next() + next() + next() - 1.5) / 16))
    for (const method of ['pissa', 'olora'] as const) {
      const made = new Set<string>()
      for (const threads of [1, 2, 7]) {
        const { left, right } = await ask(method, base, rows, cols, 5, await loadCore({ threads }))
        made.add(createHash('sha256').update(left.bytes).update(right.bytes).digest('hex').slice(0, 16))
      }
      expect(made.size, `${method} ${dtype}`).toBe(1)
      digests[`${method} ${dtype}`] = [...made][0]!
    }
  }
  expect(digests).toEqual({
    'pissa BF16': 'fd829e4297bbeaf9', 'pissa F16': '57f6128fc985852f', 'pissa F32': 'a0338d7d4573c40e',
    'olora BF16': '0521755ff4404105', 'olora F16': '14983a9d44597973', 'olora F32': '095066aa4f315753',
  })
})

test('as a product of the scale −1, what was taken out leaves the rest', async () => {
  const [rows, cols, rank] = [40, 64, 4]
  const base = stored('F32', withSingularValues(rows, cols, decaying(40)))
  const factors = await ask('pissa', base, rows, cols, rank)
  const merge = core.tensor({ dtype: 'F32', rows, cols, contributions: [{ kind: 'product', ...factors, scale: -1 }] })
  const out = new Uint8Array(base.bytes.length)
  await merge.mergeRows(0, rows, base.bytes, out)
  merge.finish()
  const rest = matrix(rows, cols, (i, j) => element({ dtype: 'F32', bytes: out }, i * cols + j))
  const expected = withSingularValues(rows, cols, [0, 0, 0, 0, ...decaying(40).slice(4)])
  expect(distance(rest, expected)).toBeLessThan(1e-6)
})

test.each(['F8_E4M3', 'F8_E5M2'] as const)('a base in %s gives the bits of its exact float32 copy', async (dtype) => {
  const [rows, cols, rank] = [40, 70, 5]
  const next = random(17)
  const narrow = stored(dtype, matrix(rows, cols, () => next() - 0.5))
  const wide = stored('F32', matrix(rows, cols, (i, j) => element(narrow, i * cols + j)))
  for (const method of ['pissa', 'olora'] as const) {
    const [made, copy] = [await ask(method, narrow, rows, cols, rank), await ask(method, wide, rows, cols, rank)]
    for (const side of ['left', 'right'] as const) expect(Buffer.compare(made[side].bytes, copy[side].bytes), `${method} ${side}`).toBe(0)
  }
})

describe('refusals', () => {
  const ties = stored('F32', withSingularValues(20, 20, [3, 2, 2, 1]))
  const dependent = stored('F32', matrix(20, 20, (i, j) => (j === 2 ? i - 7 + 3 * (i % 5) : j === 0 ? i - 7 : j === 1 ? i % 5 : (i * j) % 11)))
  const nan = stored('F32', matrix(20, 20, (i, j) => (i === 19 && j === 19 ? NaN : i - j)))
  const manyTies = stored('F32', withSingularValues(180, 150, Array.from({ length: 150 }, (_, k) => 5 - (k >> 2) / 8)))
  const zeros = stored('F32', matrix(20, 20, () => 0))
  const good = { method: 'pissa' as const, base: ties.bytes, dtype: 'F32' as const, rows: 20, cols: 20, rank: 3 }

  test.each<[string, Partial<InitialFactorsSpec>, RegExp, string]>([
    ['singular values that are alike', { rank: 2 }, /singular values 2 and 3 of the base are too alike \([12][\d.]* and [12][\d.]*, the largest being [23][\d.]*\)/, 'undetermined'],
    ['columns that depend on each other', { method: 'olora', base: dependent.bytes }, /column 3 of the base depends on those before it/, 'undetermined'],
    ['a column of zeros', { method: 'olora', base: zeros.bytes }, /column 1 of the base depends/, 'undetermined'],
    ['a NaN', { base: nan.bytes }, /the base holds a NaN or an infinity/, 'nonfinite'],
    ['a base of another size', { rows: 19 }, /the base has 1600 bytes where 19 x 20 elements need 1520/, 'invalid'],
    ['sizes that overflow', { rows: 2 ** 52, cols: 2 ** 52 }, /the base has 1600 bytes, too few for/, 'invalid'],
    ['an empty base', { rows: 0, rank: 0 }, /no elements/, 'invalid'],
    ['rank 0', { rank: 0 }, /rank is 0/, 'invalid'],
    ['a rank beyond the matrix', { rank: 21 }, /rank is 21, but a matrix of 20 x 20 has at most 20/, 'invalid'],
    ['a rank beyond its shorter side', { rows: 10, cols: 40, rank: 11 }, /rank is 11, but a matrix of 10 x 40 has at most 10/, 'invalid'],
    ['ties of a large matrix, which come late', { base: manyTies.bytes, rows: 180, cols: 150, rank: 2 }, /singular values 2 and 3 of the base are too alike/, 'undetermined'],
    ['a float64 base', { dtype: 'F64', rows: 10 }, /dtype 3: these methods begin from F32, F16, BF16, F8_E4M3 and F8_E5M2 only/, 'invalid'],
    ['an integer base', { dtype: 'I32' }, /the base has dtype -1/, 'invalid'],
    ['an unknown method', { method: 'corda' as never }, /method -1 is unknown/, 'invalid'],
  ])('%s', async (_name, change, message, status) => {
    const error = await core.initialFactors({ ...good, ...change }).then(() => expect.unreachable(), (thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(CoreError)
    expect(error).toMatchObject({ status, message: expect.stringMatching(message) })
  })

  test('columns that are nearly dependent are still determined', async () => {
    const near = stored('F32', matrix(20, 20, (i, j) => (j === 1 ? i - 7 + 2 ** -12 * (i % 5) : j === 0 ? i - 7 : (i * j) % 11)))
    const { left } = await ask('olora', near, 20, 20, 2)
    const [first, second] = [0, 1].map((k) => Float64Array.from({ length: 20 }, (_, i) => new Float32Array(left.bytes.buffer)[2 * i + k]!))
    expect(Math.abs(first!.reduce((sum, value, i) => sum + value * second![i]!, 0))).toBeLessThan(1e-6)
  })

  test('singular values that are alike but as good as zero are no matter', async () => {
    const product = productOf(await ask('pissa', ties, 20, 20, 6), 20, 20)
    expect(distance(product, withSingularValues(20, 20, [3, 2, 2, 1]))).toBeLessThan(3e-7)
    expect(productOf(await ask('pissa', zeros, 20, 20, 6), 20, 20).every((row) => row.every((value) => value === 0))).toBe(true)
  })
})
