import { expect, test } from 'vitest'
import type { Block } from '../../patch/merge-plan.ts'
import type { MergeTensor } from '../protocol.ts'
import { memoryNeeded } from '../jobs/merge-tensor.ts'
import { analyzeTensor, AnalysisBuffers } from '../analyze-tensor.ts'
import { blockContributions, blockMemory } from './block-contributions.ts'
import { loadCore } from './core.ts'
import { packedTensorBytes, packTensor } from './packed-tensor.ts'

const core = await loadCore({ threads: 2 })
const KIB = 1024

interface Located { readonly dtype: 'BF16'; readonly length: number }

const view = (factor: number) => ({ factor, offset: 0, strides: [1, 1] as const })
const product = { kind: 'product', left: view(0), right: view(1), rank: 16, scale: 1 } as const
const base: Located = { dtype: 'BF16', length: 2 * KIB * KIB }
const initial = { kind: 'initial', method: 'pissa', rank: 16, scale: -1, base, first: 0 } as const

function block(...contributions: Block<Located>['contributions']): Block<Located> {
  return { first: 0, count: KIB, contributions }
}

test('a block costs its factors in float32, and DoRA its magnitudes and norms', () => {
  expect(blockMemory(block(), KIB)).toBe(0)
  expect(blockMemory(block(product, product), KIB)).toBe(2 * 4 * 16 * 2 * KIB)
  const dora = { ...product, kind: 'dora', magnitude: { factor: 2, offset: 0 }, weight: 1 } as const
  expect(blockMemory(block({ ...dora, axis: 'rows' }), KIB)).toBe(4 * 16 * 2 * KIB + 4 * KIB)
  expect(blockMemory(block({ ...dora, axis: 'columns' }), KIB)).toBe(4 * 16 * 2 * KIB + 20 * KIB)
  expect(blockMemory(block({ kind: 'dense', scale: 1, value: base, base }), KIB)).toBe(0)
})

test('what PiSSA took out costs the whole tensor of the base while it is made anew, and float64 beside it', () => {
  const plain = blockMemory(block(product), KIB)
  const pissa = blockMemory(block(product, initial), KIB)
  expect(pissa - plain).toBeGreaterThan(base.length + 8 * KIB * KIB)
  // As many rows of the tensor as the block has are packed of it, but all of the tensor's are made.
  expect(pissa - blockMemory({ ...block(product, initial), count: 1 }, KIB)).toBe(2 * 4 * 16 * (KIB - 1))
  const olora = blockMemory(block(product, { ...initial, method: 'olora' }), KIB)
  expect([olora > plain + base.length, olora < pissa]).toEqual([true, true])
  // One after the other: two cost the second's factors more.
  expect(blockMemory(block(product, initial, initial), KIB) - pissa).toBe(2 * 4 * 16 * 2 * KIB)
})

test('a job holds one block at a time, an answer all of them', () => {
  const signed = { get: { method: 'GET' as const, url: 'http://x', headers: {} } }
  const located = { ...signed, ...base }
  const blocks = [block(product), block(product, { ...initial, base: located })].map((one, index) => ({ ...one, first: index * KIB }))
  const tensor = { name: 'w', dtype: 'BF16', rows: 2 * KIB, cols: KIB, length: 4 * KIB * KIB, source: signed.get, factors: [{ ...located, length: 100 }], blocks, put: null } as unknown as MergeTensor
  const [tiles, figures] = [4 * 2 * KIB * KIB, 32 * KIB]
  expect(memoryNeeded(tensor)).toBe(tiles + 100 + blockMemory(blocks[1] as Block<Located>, KIB) + figures)
  expect(packedTensorBytes({ cols: KIB, blocks: [block(product), block(product)] })).toBe(2 * blockMemory(block(product), KIB))
})

test('the base is given back once the factors are made', async () => {
  const size = 8
  const bytes = new Uint8Array(2 * size * size).map((_, at) => (at % 2 === 1 ? 0x3f : at * 37))
  const small = { ...initial, rank: 2, base: { dtype: 'BF16' as const, length: bytes.length } }
  const [made] = await blockContributions({ first: 0, count: size, contributions: [small] }, size, { core, factors: [], readBase: async () => bytes })
  expect(made).toMatchObject({ kind: 'product', rank: 2, scale: -1 })
  expect(bytes.length).toBe(0)
})

test('what has to be made from a whole tensor is neither served row by row nor analyzed', async () => {
  const one = block(product, initial)
  const refusal = expect.objectContaining({ status: 'invalid', message: expect.stringContaining('whole tensor') })
  expect(() => packTensor(core, { dtype: 'BF16', rows: KIB, cols: KIB, factors: [], blocks: [one] }, [])).toThrow(refusal)
  const tensor = { name: 'w', dtype: 'BF16', baseDtype: 'BF16', cols: KIB, factors: [], runs: [{ block: block(initial), sample: [] }] } as const
  const unread = () => expect.unreachable()
  await expect(analyzeTensor(tensor, { factors: async () => [], sample: unread, base: unread, target: unread }, { core, buffers: new AnalysisBuffers(), signal: new AbortController().signal }, () => {})).rejects.toEqual(refusal)
})
