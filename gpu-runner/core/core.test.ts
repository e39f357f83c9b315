import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { TARGET_DTYPES } from '../../patch/dtype.ts'
import { loadCore, type Core } from './core.ts'
import { openLibrary, PATHS, type CorePath } from './library.ts'
import { build, cases, onlyProducts, random, type Case, type RandomMerge } from './random-merge.ts'
import { decode, element, encode, fma32, fma32Exact, mergeReference, setElement, toBytes, widthOf } from './reference.ts'
import type { Contribution } from './tensor-merge.ts'

const library = await openLibrary()
const paths = (Object.keys(PATHS) as CorePath[]).filter((path) => library.supports(path))

const ORDINARY: Case = { dtype: 'BF16', rows: 1, cols: 1, kinds: ['product'], ranks: [1], values: 'ordinary', factorDtype: 'F32', operandDtype: 'F32', weight: 1, seed: 1 }

function float32(values: readonly number[]) {
  return { dtype: 'F32' as const, bytes: new Uint8Array(Float32Array.from(values).buffer) }
}

async function mergeAll(core: Core, { spec, reference, operands }: RandomMerge) {
  const merge = core.tensor(spec)
  if (merge.measures) await merge.measureRows(0, spec.rows, reference.w)
  const out = new Uint8Array(reference.w.length)
  await merge.mergeRows(0, spec.rows, reference.w, out, operands)
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

  test('encode is the inverse of decode for every narrow value that is no NaN', () => {
    for (const dtype of ['F16', 'BF16', 'F8_E4M3', 'F8_E5M2'] as const) {
      for (let bits = 0; bits < 2 ** (8 * widthOf(dtype)); bits++) {
        const value = decode(dtype, bits)
        if (!Number.isNaN(value) && encode(dtype, value) !== bits) throw new Error(`${dtype} ${bits}`)
      }
    }
  })
})

describe.each(paths)('%s equals the reference bit for bit, figures included', (path) => {
  test.each([['products', cases(onlyProducts)], ['every kind', cases()]])('%s', async (_name, arbitrary) => {
    const core = await loadCore({ path, threads: 1 })
    await fc.assert(fc.asyncProperty(arbitrary, async (spec) => {
      const merge = build(spec)
      const { out: expected, ...figures } = mergeReference(merge.reference)
      const actual = await mergeAll(core, merge)
      expect(Buffer.from(actual.out).equals(expected)).toBe(true)
      expect(actual.figures).toEqual(figures)
    }), { numRuns: 200 })
  }, 60_000)
})

test('ranks 1 to 300 agree with the reference', async () => {
  for (const [index, rank] of [1, 2, 63, 64, 65, 255, 256, 300].entries()) {
    const merge = build({ ...ORDINARY, rows: 6, cols: 70, ranks: [rank], seed: index + 1 })
    const expected = mergeReference(merge.reference).out
    for (const path of paths) {
      const { out } = await mergeAll(await loadCore({ path }), merge)
      expect(Buffer.from(out).equals(expected), `${path}, rank ${rank}`).toBe(true)
    }
  }
})

/** Contributions that make exact ties, near-ties and overflow at some magnitude of W, for every narrow dtype. */
const CONTRIBUTIONS = [0, 2 ** -8, -3 * 2 ** -8, 2 ** -11, 2 ** -25, -3 * 2 ** -25, 2 ** -134, 2 ** 119, 16, -0.3]

test('every narrow value of W rounds right: ties, subnormals, overflow, NaNs made canonical', async () => {
  for (const dtype of ['BF16', 'F16', 'F8_E4M3', 'F8_E5M2'] as const) {
    const side = widthOf(dtype) === 2 ? 256 : 16
    const w = Array.from({ length: side * side }, (_, bits) => bits)
    for (const contribution of CONTRIBUTIONS) {
      const t = Math.fround(contribution)
      // t = +0 + 1·t, so −0 never comes out of a zero contribution: −0 + +0 = +0.
      const expectedBits = w.map((bits) => encode(dtype, Math.fround(decode(dtype, bits) + t)))
      const expected = toBytes(dtype, expectedBits)
      const column = { ...float32(new Array(side).fill(1)), offset: 0, strides: [1, 1] as const }
      const row = { ...float32(new Array(side).fill(t)), offset: 0, strides: [side, 1] as const }
      for (const path of paths) {
        const merge = (await loadCore({ path })).tensor({ dtype, rows: side, cols: side, contributions: [{ kind: 'product', left: column, right: row, rank: 1, scale: 1 }] })
        const out = new Uint8Array(expected.length)
        await merge.mergeRows(0, side, toBytes(dtype, w), out)
        expect(Buffer.from(out).equals(expected), `${path} ${dtype} + ${t}`).toBe(true)
        expect(merge.finish().nonFinite).toBe(expectedBits.filter((bits) => !Number.isFinite(decode(dtype, bits))).length)
      }
    }
  }
}, 30_000)

test('contributions that are −0 turn −0 of W into +0, as those that are +0 do', async () => {
  const [rows, cols] = [8, 140]
  const zeros = { ...float32(new Array(Math.max(rows, cols)).fill(0)), offset: 0, strides: [1, 1] as const }
  const product = { kind: 'product', left: zeros, right: zeros, rank: 1, scale: -1 } as const
  for (const dtype of ['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'] as const) {
    const w = { dtype, bytes: new Uint8Array(rows * cols * widthOf(dtype)) }
    for (let i = 0; i < rows * cols; i++) setElement(w, i, -0)
    for (const path of paths) {
      for (const contributions of [[product], [product, product]]) {
        const merge = (await loadCore({ path })).tensor({ dtype, rows, cols, contributions })
        const out = new Uint8Array(w.bytes.length).fill(1)
        await merge.mergeRows(0, rows, w.bytes, out)
        expect(out.every((byte) => byte === 0), `${path} ${dtype}, ${contributions.length} products`).toBe(true)
        merge.finish()
      }
    }
  }
})

test('a replacement is rounded once from float64, where rounding by way of float32 would be wrong', async () => {
  for (const dtype of ['BF16', 'F16', 'F8_E4M3', 'F8_E5M2'] as const) {
    // Half-way between neighbours, and just beside it: float32 holds only the half-way.
    const values = Array.from({ length: 0x70 }, (_, bits) => bits << (8 * widthOf(dtype) - 8)).flatMap((bits) => {
      const middle = (decode(dtype, bits) + decode(dtype, bits + 1)) / 2
      return [-1, 0, 1].flatMap((side) => [middle * (1 + side * 2 ** -40), -middle * (1 + side * 2 ** -40)])
    })
    const expected = { dtype, bytes: new Uint8Array(values.length * widthOf(dtype)) }
    values.forEach((value, i) => setElement(expected, i, value))
    for (const path of paths) {
      const merge = (await loadCore({ path })).tensor({ dtype, rows: 1, cols: values.length, contributions: [{ kind: 'replace', value: 'F64' }] })
      const out = new Uint8Array(expected.bytes.length)
      await merge.mergeRows(0, 1, new Uint8Array(out.length), out, [new Uint8Array(Float64Array.from(values).buffer)])
      expect(Buffer.from(out).equals(expected.bytes), `${path} ${dtype}`).toBe(true)
      merge.finish()
    }
  }
})

test('a replacement by values of the target\'s own dtype keeps their bits, −0 among them', async () => {
  const value = float32([-0, 0, 2 ** -149, -3e38, 1 / 3])
  const merge = (await loadCore()).tensor({ dtype: 'F32', rows: 1, cols: 5, contributions: [{ kind: 'replace', value: 'F32' }] })
  const out = new Uint8Array(20)
  await merge.mergeRows(0, 1, float32([1, -0, 1, 1, 1]).bytes, out, [value.bytes])
  expect(out).toEqual(value.bytes)
  merge.finish()
})

test('values of each dtype replace, and are added to, each dtype, as the reference says', async () => {
  const shape = { rows: 9, cols: 70, ranks: [1], factorDtype: 'F32', weight: 1, seed: 21 } as const
  for (const dtype of TARGET_DTYPES) {
    for (const operandDtype of TARGET_DTYPES) {
      for (const kind of ['replace', 'delta'] as const) {
        for (const values of ['ordinary', 'special'] as const) {
          const merge = build({ ...shape, dtype, operandDtype, kinds: [kind], values })
          const { out: expected, ...figures } = mergeReference(merge.reference)
          for (const path of paths) {
            const actual = await mergeAll(await loadCore({ path, threads: 1 }), merge)
            const where = `${path} ${dtype} ${kind} ${operandDtype} ${values}`
            expect(Buffer.from(actual.out).equals(expected), where).toBe(true)
            expect(actual.figures, where).toEqual(figures)
          }
        }
      }
    }
  }
}, 60_000)

test('the largest finite values count as finite', async () => {
  for (const dtype of ['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'] as const) {
    const largest = { F64: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0x7f], F32: [0xff, 0xff, 0x7f, 0xff], F16: [0xff, 0x7b], BF16: [0x7f, 0xff], F8_E4M3: [0x7e], F8_E5M2: [0xfb] }[dtype]
    const zero = { ...float32([0]), offset: 0, strides: [1, 1] as const }
    const w = Uint8Array.from(largest)
    for (const path of paths) {
      const merge = (await loadCore({ path })).tensor({ dtype, rows: 1, cols: 1, contributions: [{ kind: 'product', left: zero, right: zero, rank: 1, scale: 1 }] })
      const out = new Uint8Array(w.length)
      await merge.mergeRows(0, 1, w, out)
      expect([merge.finish().nonFinite, [...out]], `${path} ${dtype}`).toEqual([0, largest])
    }
  }
})

test('a DoRA row or column whose norm is zero or infinite comes out as NaN and is counted', async () => {
  for (const axis of ['rows', 'columns'] as const) {
    for (const [dtype, large] of [['BF16', Infinity], ['F64', 2 ** 600]] as const) {
      const w = { dtype, bytes: new Uint8Array(16 * widthOf(dtype)) }
      for (let i = 0; i < 16; i++) setElement(w, i, 1 / (i + 1))
      for (let i = 0; i < 4; i++) {
        setElement(w, axis === 'rows' ? 4 + i : 4 * i + 1, 0)
        setElement(w, axis === 'rows' ? 8 + i : 4 * i + 2, i === 3 ? large : 1)
      }
      const zeros = { ...float32([0, 0, 0, 0]), offset: 0, strides: [1, 1] as const }
      for (const weight of [1, 0.5]) {
        const merge = (await loadCore()).tensor({ dtype, rows: 4, cols: 4, contributions: [{ kind: 'dora', left: zeros, right: zeros, rank: 1, scale: 1, magnitude: float32([1, 1, 1, 1]), axis, weight }] })
        if (merge.measures) await merge.measureRows(0, 4, w.bytes)
        const out = { dtype, bytes: new Uint8Array(w.bytes.length) }
        await merge.mergeRows(0, 4, w.bytes, out.bytes)
        expect(merge.finish().nonFinite, `${axis} ${dtype} ${weight}`).toBe(8)
        for (let i = 0; i < 16; i++) expect(Number.isNaN(element(out, i))).toBe([1, 2].includes(axis === 'rows' ? i >> 2 : i & 3))
      }
    }
  }
})

const MIXED: Case = { ...ORDINARY, dtype: 'F16', rows: 403, cols: 517, kinds: ['product', 'dora-rows', 'dense', 'dora-columns', 'delta', 'product'], ranks: [5, 40, 3], operandDtype: 'F64', weight: 0.3, seed: 78 }

test.each<[string, Case]>([
  ['products', { ...ORDINARY, rows: 1203, cols: 1111, kinds: ['product', 'product'], ranks: [17, 300], values: 'special', factorDtype: 'BF16', seed: 77 }],
  ['every kind', MIXED],
  ['every kind onto float64', { ...MIXED, dtype: 'F64', operandDtype: 'BF16' }],
  ['every kind onto float8', { ...MIXED, dtype: 'F8_E5M2' }],
  ['DoRA over rows, alone', { ...MIXED, dtype: 'BF16', kinds: ['dora-rows'], weight: 1 }],
])('bytes and figures do not depend on threads, tiling, order of rows, path, or working in place: %s', async (_name, spec) => {
  const merge = build(spec)
  const expected = await mergeAll(await loadCore({ path: paths.at(-1)!, threads: 1 }), merge)
  const [rows, w] = [spec.rows, merge.reference.w]
  // Where most is NaN, nothing could differ.
  expect(expected.figures.nonFinite).toBeLessThan(0.5 * rows * spec.cols)

  for (const [path, threads, tile] of [[paths.at(-1)!, 2, rows], [paths.at(-1)!, 7, rows], [paths.at(-1)!, 3, 101], [paths[1] ?? 'scalar', 2, 257], ['scalar', 2, rows]] as const) {
    const tensor = (await loadCore({ path, threads })).tensor(merge.spec)
    const out = Uint8Array.from(w)
    const slice = (bytes: Uint8Array, first: number, count: number) => bytes.subarray((first * bytes.length) / rows, ((first + count) * bytes.length) / rows)
    const tiles = Array.from({ length: Math.ceil(rows / tile) }, (_, i) => [i * tile, Math.min(tile, rows - i * tile)] as const)
    if (tensor.measures) {
      for (const [first, count] of tiles) await tensor.measureRows(first, count, slice(w, first, count))
    }
    await Promise.all(tiles.toReversed().map(([first, count]) => {
      const rowsOut = slice(out, first, count)
      return tensor.mergeRows(first, count, rowsOut, rowsOut, merge.operands.map((bytes) => slice(bytes, first, count)))
    }))
    expect(Buffer.from(out).equals(expected.out), `${path}, ${threads} threads, tiles of ${tile}`).toBe(true)
    expect(tensor.finish()).toEqual(expected.figures)
  }
}, 30_000)

test('any cuts of the rows, other ones for measuring, give the same bytes and figures', async () => {
  const cuts = fc.array(fc.nat(22), { maxLength: 6 })
  const pieces = (at: readonly number[], rows: number) => {
    const bounds = [...new Set([0, ...at.filter((row) => row < rows), rows])].sort((a, b) => a - b)
    return bounds.slice(1).map((end, i) => [bounds[i]!, end - bounds[i]!] as const)
  }
  await fc.assert(fc.asyncProperty(cases(), cuts, cuts, fc.constantFrom(...paths), async (spec, mergeCuts, measureCuts, path) => {
    const merge = build(spec)
    const { rows } = spec
    const core = await loadCore({ path, threads: 2 })
    const expected = await mergeAll(core, merge)
    const slice = (bytes: Uint8Array, first: number, count: number) => bytes.subarray((first * bytes.length) / rows, ((first + count) * bytes.length) / rows)
    const tensor = core.tensor(merge.spec)
    if (tensor.measures) {
      for (const [first, count] of pieces(measureCuts, rows)) await tensor.measureRows(first, count, slice(merge.reference.w, first, count))
    }
    const out = new Uint8Array(merge.reference.w.length)
    for (const [first, count] of pieces(mergeCuts, rows).reverse()) {
      await tensor.mergeRows(first, count, slice(merge.reference.w, first, count), slice(out, first, count), merge.operands.map((bytes) => slice(bytes, first, count)))
    }
    expect(Buffer.from(out).equals(expected.out)).toBe(true)
    expect(tensor.finish()).toEqual(expected.figures)
  }), { numRuns: 200 })
}, 60_000)

describe('rows that are read from a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'portllm-core-'))
  const path = join(folder, 'w')
  afterAll(() => rmSync(folder, { recursive: true }))

  /** With one thread, from a file in which W begins at an odd byte. */
  async function fromFile(merge: RandomMerge, processorPath: CorePath, cuts: readonly number[]) {
    const { rows } = merge.spec
    writeFileSync(path, Buffer.concat([Buffer.from('other'), merge.reference.w]))
    const file = openSync(path, 'r')
    const tensor = (await loadCore({ path: processorPath, threads: 2 })).tensor(merge.spec)
    try {
      if (tensor.measures) await tensor.measureRows(0, rows, merge.reference.w)
      const out = new Uint8Array(merge.reference.w.length)
      const rowBytes = out.length / rows
      for (const [index, first] of cuts.entries()) {
        const end = cuts[index + 1] ?? rows
        const slice = (bytes: Uint8Array) => bytes.subarray((first * bytes.length) / rows, (end * bytes.length) / rows)
        await tensor.mergeFileRows(first, end - first, file, 5 + first * rowBytes, slice(out), merge.operands.map(slice))
      }
      return { out, figures: tensor.finish() }
    } finally {
      closeSync(file)
    }
  }

  test('come out as those that are given, figures included', async () => {
    await fc.assert(fc.asyncProperty(cases(), fc.uniqueArray(fc.nat(22), { maxLength: 4 }), fc.constantFrom(...paths), async (spec, at, processorPath) => {
      const merge = build(spec)
      const { out, figures } = await mergeAll(await loadCore({ path: processorPath }), merge)
      const actual = await fromFile(merge, processorPath, [0, ...at.filter((row) => row > 0 && row < spec.rows).sort((a, b) => a - b)])
      expect(Buffer.from(actual.out).equals(out)).toBe(true)
      expect(actual.figures).toEqual(figures)
    }), { numRuns: 100 })
  }, 60_000)

  test('so too where they are read in many turns, from a row that is no multiple of four on', async () => {
    for (const processorPath of paths.filter((one) => one !== 'scalar')) {
      const merge = build({ ...ORDINARY, kinds: ['product', 'dora-rows', 'dense', 'delta'], rows: 403, cols: 1000, ranks: [3] })
      const { out } = await mergeAll(await loadCore({ path: processorPath }), merge)
      expect(Buffer.from((await fromFile(merge, processorPath, [0, 1, 6])).out).equals(out)).toBe(true)
    }
  })

  test('are an error where the file ends before, or is none', async () => {
    const merge = build({ ...ORDINARY, rows: 8, cols: 8 })
    writeFileSync(path, merge.reference.w)
    const file = openSync(path, 'r')
    const tensor = (await loadCore()).tensor(merge.spec)
    const out = new Uint8Array(128)
    await expect(tensor.mergeFileRows(0, 8, file, 1, out)).rejects.toMatchObject({ status: 'io', message: 'the file ended while W was read' })
    await expect(tensor.mergeFileRows(1, 8, file, 0, out)).rejects.toThrow(/outside the tensor's 8 rows/)
    await expect(tensor.mergeFileRows(0, 8, file, 0, out.subarray(1))).rejects.toThrow(/8 rows take 128 bytes/)
    closeSync(file)
    await expect(tensor.mergeFileRows(0, 8, -1, 0, out)).rejects.toMatchObject({ status: 'io', message: 'reading W: Bad file descriptor' })
    tensor.finish()
  })
})

test('a tensor in blocks of rows gives the bytes of the whole', async () => {
  const core = await loadCore()
  const merge = build({ ...MIXED, kinds: ['product', 'dora-rows', 'dense', 'delta'], dtype: 'BF16' })
  const { rows, cols } = merge.spec
  const whole = await mergeAll(core, merge)
  const out = new Uint8Array(whole.out.length)
  for (const [first, count] of [[0, 1], [1, 6], [7, 250], [257, rows - 257]] as const) {
    const slice = (bytes: Uint8Array) => bytes.subarray((first * bytes.length) / rows, ((first + count) * bytes.length) / rows)
    const contributions = merge.spec.contributions.map((one): Contribution => {
      if (!('rank' in one)) return one
      const left = { ...one.left, offset: one.left.offset + first * one.left.strides[0] }
      return one.kind === 'dora' ? { ...one, left, magnitude: { ...one.magnitude, bytes: slice(one.magnitude.bytes) } } : { ...one, left }
    })
    const block = core.tensor({ dtype: 'BF16', rows: count, cols, contributions })
    await block.mergeRows(0, count, slice(merge.reference.w), slice(out), merge.operands.map(slice))
    block.finish()
  }
  expect(Buffer.from(out).equals(whole.out)).toBe(true)
})

test('non-temporal stores of large outputs give the same bytes', async () => {
  for (const kinds of [['product'], ['dora-rows']] as const) {
    const { spec, reference } = build({ ...ORDINARY, rows: 4100, cols: 2080, kinds, ranks: [2], seed: 5 })
    const inPlace = Uint8Array.from(reference.w)
    const merge = (await loadCore()).tensor(spec)
    const out = new Uint8Array(inPlace.length)
    await merge.mergeRows(0, spec.rows, reference.w, out)
    await merge.mergeRows(0, spec.rows, inPlace, inPlace)
    expect(Buffer.from(out).equals(inPlace)).toBe(true)
    expect(Buffer.from(out).equals(reference.w)).toBe(false)
    merge.finish()
  }
}, 30_000)

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
