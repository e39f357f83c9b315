import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DTYPE_BITS, MERGEABLE_DTYPES, TARGET_DTYPES, type MergeableDtype, type TargetDtype } from '../../patch/dtype.ts'
import type { Block, Contribution as Planned } from '../../patch/merge-plan.ts'
import { loadCore } from './core.ts'
import { mergedRows, sumFigures, TILES, type MergeInputs, type PlannedTensor } from './merged-rows.ts'
import { build, random, type Kind, type RandomMerge } from './random-merge.ts'
import type { MergeFigures } from './tensor-merge.ts'

const core = await loadCore({ threads: 1 })

interface Held { readonly bytes: Uint8Array; readonly length: number; readonly dtype: TargetDtype }
type HeldFactor = Held & { readonly dtype: MergeableDtype }

function held<T extends TargetDtype>(dtype: T, bytes: Uint8Array): Held & { readonly dtype: T } {
  return { bytes, length: bytes.byteLength, dtype }
}

/** Blocks of random merges on top of each other as one planned tensor, and its W. */
function stack(parts: readonly { readonly rows: number; readonly merge: RandomMerge | null; readonly w: Uint8Array }[], dtype: TargetDtype, cols: number) {
  const factors: HeldFactor[] = []
  const keep = (factor: HeldFactor) => factors.push(factor) - 1
  let first = 0
  const blocks = parts.map(({ rows, merge }): Block<Held> => {
    const contributions = (merge?.reference.contributions ?? []).map((one): Planned<Held> => {
      if (one.kind === 'replace') return { kind: 'replace', value: held(one.value.dtype, one.value.bytes) }
      if (one.kind === 'dense') return { kind: 'dense', scale: one.scale, value: held(one.value.dtype, one.value.bytes), base: one.base && held(one.base.dtype, one.base.bytes) }
      const side = ({ dtype, bytes, offset, strides }: typeof one.left) => ({ factor: keep(held(dtype as MergeableDtype, bytes)), offset, strides })
      const product = { rank: one.rank, scale: one.scale, left: side(one.left), right: side(one.right) }
      if (one.kind === 'product') return { kind: 'product', ...product }
      return { kind: 'dora', ...product, axis: one.axis, weight: one.weight, magnitude: { factor: keep(held(one.magnitude.dtype as MergeableDtype, one.magnitude.bytes)), offset: 0 } }
    })
    const block = { first, count: rows, contributions }
    first += rows
    return block
  })
  const tensor: PlannedTensor<Held> = { dtype, rows: first, cols, factors, blocks }
  return { tensor, w: Buffer.concat(parts.map(({ w }) => w)) }
}

/** In pieces of an odd size, as a network gives them. */
async function* pieces(bytes: Uint8Array, offset: number, length: number): AsyncGenerator<Buffer, void, undefined> {
  for (let at = offset; at < offset + length; at += 331) yield Buffer.from(bytes.subarray(at, Math.min(at + 331, offset + length)))
}

function inputs(w: Uint8Array): MergeInputs<Held> {
  return { source: (offset, length) => pieces(w, offset, length), read: ({ bytes }, offset, length) => pieces(bytes, offset, length) }
}

async function collect(tensor: PlannedTensor<Held>, w: Uint8Array, rowsAtOnce: number, rows?: { first: number; count: number }) {
  const width = (tensor.cols * DTYPE_BITS[tensor.dtype]) / 8
  const buffers = Array.from({ length: TILES }, () => Buffer.alloc(rowsAtOnce * width))
  const figures: MergeFigures[] = []
  const out: Buffer[] = []
  let before: Uint8Array = new Uint8Array()
  let copied = Buffer.alloc(0)
  for await (const bytes of mergedRows(tensor, inputs(w), { core, buffers, ...(rows && { rows }), onFigures: (one) => figures.push(one) })) {
    // The tile before this one must still be what it was.
    expect(copied.equals(before)).toBe(true)
    before = bytes
    copied = Buffer.from(bytes)
    out.push(copied)
  }
  return { bytes: Buffer.concat(out), figures: sumFigures(figures) }
}

const kinds = fc.oneof(fc.constantFrom<readonly Kind[]>(['replace'], ['product'], []), fc.array(fc.constantFrom<Kind>('product', 'dora-rows', 'dense', 'delta'), { minLength: 1, maxLength: 3 }))

const stacks = fc.record({
  dtype: fc.constantFrom(...TARGET_DTYPES),
  cols: fc.integer({ min: 1, max: 90 }),
  factorDtype: fc.constantFrom(...MERGEABLE_DTYPES),
  parts: fc.oneof(
    fc.array(fc.record({ rows: fc.integer({ min: 1, max: 17 }), kinds }), { minLength: 1, maxLength: 4 }),
    fc.integer({ min: 1, max: 40 }).map((rows) => [{ rows, kinds: ['product', 'dora-columns'] as readonly Kind[] }]),
  ),
  rowsAtOnce: fc.integer({ min: 1, max: 7 }),
  range: fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
})

test('any rows of any blocks, tile by tile, are the bytes of one merge of each block', async () => {
  await fc.assert(fc.asyncProperty(stacks, async ({ dtype, cols, factorDtype, parts, rowsAtOnce, range, seed }) => {
    const next = random(seed)
    const expected: Buffer[] = []
    const built = []
    for (const { rows, kinds } of parts) {
      const made = build({ dtype, rows, cols, kinds: kinds.length === 0 ? ['product'] : kinds, ranks: [3, 5], values: 'ordinary', factorDtype, operandDtype: factorDtype, weight: 1, seed: 1 + Math.floor(next() * 2 ** 31) })
      const merge = kinds.length === 0 ? null : made
      const w = made.reference.w
      built.push({ rows, merge, w })
      if (merge === null) {
        expected.push(Buffer.from(w))
        continue
      }
      const out = new Uint8Array(w.byteLength)
      const opened = core.tensor(merge.spec)
      if (opened.measures) await opened.measureRows(0, rows, w)
      await opened.mergeRows(0, rows, w, out, merge.operands)
      opened.finish()
      expected.push(Buffer.from(out))
    }
    const { tensor, w } = stack(built, dtype, cols)
    const whole = await collect(tensor, w, rowsAtOnce)
    expect(whole.bytes.equals(Buffer.concat(expected))).toBe(true)
    const [from, to] = range.map((part) => Math.floor(part * tensor.rows)).sort((a, b) => a - b)
    const rows = { first: from!, count: Math.max(1, Math.min(tensor.rows, to! + 1) - from!) }
    if (rows.first >= tensor.rows) return
    const width = (cols * DTYPE_BITS[dtype]) / 8
    const part = await collect(tensor, w, rowsAtOnce, rows)
    expect(part.bytes.equals(whole.bytes.subarray(rows.first * width, (rows.first + rows.count) * width))).toBe(true)
  }), { numRuns: 120, seed: 20261125 })
})

test('an input that ends early, and a reader that leaves, end it and let go of everything', async () => {
  const merge = build({ dtype: 'BF16', rows: 20, cols: 64, kinds: ['product', 'dense'], ranks: [4], values: 'ordinary', factorDtype: 'F32', operandDtype: 'F32', weight: 1, seed: 5 })
  const { tensor, w } = stack([{ rows: 20, merge, w: merge.reference.w }], 'BF16', 64)
  let open = 0
  async function* watched(generator: AsyncGenerator<Buffer, void, undefined>) {
    open++
    try {
      yield* generator
    } finally {
      open--
    }
  }
  const from = (bytes: Uint8Array): MergeInputs<Held> => ({
    source: (offset, length) => watched(pieces(bytes, offset, Math.min(length, bytes.byteLength - offset))),
    read: (held, offset, length) => watched(pieces(held.bytes, offset, length)),
  })
  const buffers = Array.from({ length: TILES }, () => Buffer.alloc(2 * 128))
  const drain = async (bytes: Uint8Array, leave: number) => {
    let tiles = 0
    for await (const _ of mergedRows(tensor, from(bytes), { core, buffers })) if (++tiles === leave) break
    return tiles
  }
  expect(await drain(w, Infinity)).toBe(10)
  expect(await drain(w, 3)).toBe(3)
  await expect(drain(w.subarray(0, 1000), Infinity)).rejects.toThrow('an input of the merge ends')
  expect(open).toBe(0)
})
