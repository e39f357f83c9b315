import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { loadCore } from '../../gpu-runner/core/core.ts'
import { build, cases, random, type Kind } from '../../gpu-runner/core/random-merge.ts'
import { mergeReference, widthOf, type Stored, type StoredMatrix } from '../../gpu-runner/core/reference.ts'
import type { Contribution as Planned, Block } from '../../patch/merge-plan.ts'
import { blobKey, BlobMissingError, type BlobStore } from './blob-store.ts'
import { createNativeMerger } from './native-merger.ts'
import type { LocatedBytes, LocatedTensor } from './tensor-merger.ts'

// Compiled first where it must be, which takes longer than a test may.
await loadCore()

/** One blob that holds everything, and counts what is open. */
class OneBlob {
  readonly seen = { open: 0, reads: 0 }
  #bytes = Buffer.alloc(5)

  add(bytes: Uint8Array): { blob: string; offset: number; length: number } {
    const offset = this.#bytes.length
    this.#bytes = Buffer.concat([this.#bytes, bytes, Buffer.alloc(3)])
    return { blob: 'one', offset, length: bytes.length }
  }

  #file: number | undefined

  /** From now on the blob is a file too, as it is in a folder. */
  intoFile(): Disposable {
    const folder = mkdtempSync(join(tmpdir(), 'portllm-merger-'))
    writeFileSync(join(folder, 'one'), this.#bytes)
    const file = (this.#file = openSync(join(folder, 'one'), 'r'))
    return { [Symbol.dispose]: () => { closeSync(file); rmSync(folder, { recursive: true }) } }
  }

  readonly store: Pick<BlobStore, 'open'> = {
    open: async (key) => {
      if (key !== blobKey('one')) throw new BlobMissingError(key)
      await turn()
      this.seen.open++
      let open = true
      return {
        ...(this.#file !== undefined && { file: this.#file }),
        read: async (into, position) => {
          await turn()
          if (!open) throw new Error('read after close')
          this.seen.reads++
          into.set(this.#bytes.subarray(position, position + into.length))
        },
        close: async () => {
          if (open) this.seen.open--
          open = false
        },
      }
    },
  }
}

interface Made { blob: OneBlob; tensor: LocatedTensor; expected: Buffer }

/** A tensor of several blocks, each a random merge or rows that nothing changes, and what it has to become. */
function make(parts: readonly (Parameters<typeof build>[0] | { untouched: number })[]): Made {
  const first = parts.find((part) => !('untouched' in part)) as Parameters<typeof build>[0]
  const { dtype, cols } = first
  const blob = new OneBlob()
  const [w, expected, factors, blocks]: [Uint8Array[], Uint8Array[], LocatedBytes[], Block<LocatedBytes>[]] = [[], [], [], []]
  const factor = (stored: Stored) => factors.push({ ...blob.add(stored.bytes), dtype: stored.dtype }) - 1
  const operand = (stored: Stored): LocatedBytes => ({ ...blob.add(stored.bytes), dtype: stored.dtype })
  const view = (matrix: StoredMatrix) => ({ factor: factor(matrix), offset: matrix.offset, strides: matrix.strides })
  let rows = 0
  for (const part of parts) {
    const count = 'untouched' in part ? part.untouched : part.rows
    if ('untouched' in part) {
      const next = random(rows + 1)
      const bytes = Uint8Array.from({ length: count * cols * widthOf(dtype) }, () => 256 * next())
      w.push(bytes)
      expected.push(bytes)
      blocks.push({ first: rows, count, contributions: [] })
    } else {
      const { reference } = build({ ...part, dtype, cols })
      w.push(reference.w)
      expected.push(mergeReference(reference).out)
      const contributions = reference.contributions.map((one): Planned<LocatedBytes> => {
        if (one.kind === 'product') return { kind: 'product', rank: one.rank, scale: one.scale, left: view(one.left), right: view(one.right) }
        if (one.kind === 'dora') return { kind: 'dora', rank: one.rank, scale: one.scale, left: view(one.left), right: view(one.right), magnitude: { factor: factor(one.magnitude), offset: 0 }, axis: one.axis, weight: one.weight }
        if (one.kind === 'dense') return { kind: 'dense', scale: one.scale, value: operand(one.value), base: one.base && operand(one.base) }
        return { kind: 'replace', value: operand(one.value) }
      })
      blocks.push({ first: rows, count, contributions })
    }
    rows += count
  }
  const tensor = { name: 'w', dtype, rows, cols, source: blob.add(Buffer.concat(w)), factors: factors as LocatedTensor['factors'], blocks }
  return { blob, tensor, expected: Buffer.concat(expected) }
}

let derivations = 0
function reader({ blob, tensor }: Made, tileBytes: number, aheadBytes?: number) {
  const merger = createNativeMerger(blob.store, { tileBytes, ...(aheadBytes !== undefined && { aheadBytes }) })
  const derivation = String(derivations++)
  return (offset: number, length: number) => merger.open({ derivation, locate: async () => [tensor], tensor: 0, range: { offset, length }, signal: new AbortController().signal, reuse: true })
}

/** As sendStream reads: a chunk is done with before the next one is asked for. */
async function collect(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Buffer[] = []
  const chunkReader = stream.getReader()
  for (let next = await chunkReader.read(); !next.done; next = await chunkReader.read()) chunks.push(Buffer.from(next.value))
  return Buffer.concat(chunks)
}

const rowWise = fc.array(fc.constantFrom<Kind>('product', 'product', 'dora-rows', 'dense', 'delta'), { minLength: 1, maxLength: 3 })
/** The second reading of the rules is slow: small matrices. */
const small = (kinds: fc.Arbitrary<readonly Kind[]>) => cases(kinds).map((one) => ({ ...one, rows: Math.min(one.rows, 6), cols: Math.min(one.cols, 70), ranks: one.ranks.map((rank) => Math.min(rank, 5)) }))
const part = fc.oneof(
  { weight: 4, arbitrary: small(fc.oneof({ weight: 5, arbitrary: rowWise }, { weight: 1, arbitrary: fc.constant<readonly Kind[]>(['replace']) })) },
  { weight: 1, arbitrary: fc.record({ untouched: fc.integer({ min: 1, max: 5 }) }) },
)
const tensors = fc.tuple(small(rowWise), fc.array(part, { maxLength: 2 })).map(([one, more]) => [one, ...more])

it('gives the bytes of the whole merge for every range, whatever the kinds, dtypes, blocks and tiles', async () => {
  await fc.assert(fc.asyncProperty(tensors, fc.integer({ min: 1, max: 3000 }), fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 4 }), fc.boolean(), async (parts, tileBytes, ranges, isFile) => {
    const made = make(parts)
    using _file = isFile ? made.blob.intoFile() : null
    const read = reader(made, tileBytes)
    await Promise.all(ranges.map(async ([a, b]) => {
      const { length } = made.expected
      const [start, end] = [a % length, b % length].sort((x, y) => x - y) as [number, number]
      const bytes = (await collect(await read(start, end + 1 - start)))
      expect(bytes.equals(made.expected.subarray(start, end + 1)), `bytes ${start} to ${end}`).toBe(true)
    }))
    expect(made.blob.seen.open).toBe(0)
  }), { numRuns: 60 })
})

function large(): Made {
  return make([{ dtype: 'BF16', rows: 64, cols: 64, kinds: ['product'], ranks: [4], values: 'ordinary', factorDtype: 'F32', operandDtype: 'F32', weight: 1, seed: 7 }])
}

it('reads only the rows of the range, and no further ahead than two tiles', async () => {
  const made = large()
  const read = reader(made, 256)
  await collect(await read(128 * 10 + 1, 128))
  // Two factors, and the two rows in one tile.
  expect(made.blob.seen.reads).toBe(3)
  const stream = (await read(0, made.expected.length)).getReader()
  await stream.read()
  for (let i = 0; i < 50; i++) await turn()
  expect(made.blob.seen.reads).toBeLessThanOrEqual(3 + 3)
  await stream.cancel()
})

it('lets go of everything when it is cancelled, whenever that is', async () => {
  await fc.assert(fc.asyncProperty(fc.nat(20), fc.nat(5), async (turns, tiles) => {
    const made = large()
    const read = reader(made, 256)
    const stream = (await read(0, made.expected.length)).getReader()
    for (let i = 0; i < tiles; i++) await stream.read()
    const pending = stream.read().catch(() => null)
    for (let i = 0; i < turns; i++) await turn()
    await stream.cancel(new Error('the client left'))
    await pending
    expect(made.blob.seen.open).toBe(0)
    expect((await collect(await read(0, made.expected.length))).equals(made.expected)).toBe(true)
  }), { numRuns: 40 })
})

it('serves on while hundreds of clients have stopped reading', async () => {
  const made = large()
  const tile = made.expected.length / 8
  // Three of them take all that may lie ready.
  const read = reader(made, tile, 6 * tile)
  const stalled = await Promise.all(Array.from({ length: 300 }, async () => {
    const stream = (await read(0, made.expected.length)).getReader()
    await stream.read()
    return stream
  }))
  expect((await collect(await read(0, made.expected.length))).equals(made.expected)).toBe(true)
  for (const stream of stalled) await stream.cancel()
  expect(made.blob.seen.open).toBe(0)
})

it('errors the stream where the rows cannot be read, and names the tensor', async () => {
  const { tensor } = large()
  const merger = createNativeMerger(new OneBlob().store)
  const broken = { ...tensor, factors: tensor.factors.map((factor) => ({ ...factor, blob: 'gone' })) }
  const stream = await merger.open({ derivation: 'x', locate: async () => [broken], tensor: 0, range: { offset: 0, length: 10 }, signal: new AbortController().signal, reuse: true })
  await expect(stream.getReader().read()).rejects.toThrow(/tensor w cannot be computed: .*no object/)
})
