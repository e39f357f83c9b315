import { describe, expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import type { AdditiveEdit, DenseEdit, DoraEdit, Edit, ReplaceEdit } from './edit.ts'
import { adapterEdits } from './edits.ts'
import { MergePlanError, planMerge } from './merge-plan.ts'
import type { PlannedPatch } from './merge-plan.ts'
import { sampleConfig, sampleManifest, sampleModel, samplePatch, sampleTensors } from './sample-manifests.ts'

/** E experts of 6 × 8 in one tensor, and a vector. */
const target = sampleManifest([['first.weight', [4, 8]], ['experts.w', [3, 6, 8]], ['norm.weight', [8]]])
const base = sampleManifest([['first.weight', [4, 8]], ['experts.w', [3, 6, 8]]], 'F32')
const manifest = samplePatch(sampleConfig(), [
  { name: 'a', dtype: 'F32', shape: [6, 8] }, { name: 'b', dtype: 'BF16', shape: [6, 2, 3] }, { name: 'values', dtype: 'F16', shape: [3, 6, 8] },
  { name: 'magnitude', dtype: 'F32', shape: [4] },
])

function patch(edits: readonly Edit[], weight = 1): PlannedPatch {
  return { manifest, edits, untied: null, weight, base }
}

/** The low-rank edit of one expert, B as PEFT lays it out: (out, rank, E). */
function expert(index: number): AdditiveEdit {
  return {
    kind: 'additive', target: 'experts.w', rows: { first: 6 * index, count: 6 }, cols: 8, rank: 2, scale: 0.5, initial: null, isShared: false, consumes: [],
    left: { tensor: 'b', offset: index, strides: [6, 3] }, right: { tensor: 'a', offset: 16 * index, strides: [8, 1] },
  }
}

const whole = { target: 'first.weight', rows: { first: 0, count: 4 }, cols: 8, isShared: false, consumes: [] }
const product = { rank: 2, scale: 0.5, left: { tensor: 'a', offset: 0, strides: [2, 1] }, right: { tensor: 'a', offset: 16, strides: [8, 1] } } as const
const additive: AdditiveEdit = { ...whole, kind: 'additive', ...product, initial: null }
const dora: DoraEdit = { ...whole, kind: 'dora', ...product, magnitude: { tensor: 'magnitude', offset: 0 }, axis: 'rows' }
const difference: DenseEdit = { ...whole, kind: 'dense', scale: 1, value: { tensor: 'values', offset: 8 }, base: { tensor: 'first.weight', offset: 0 } }
const rows: DenseEdit = { ...difference, rows: { first: 1, count: 2 }, base: { tensor: 'first.weight', offset: 8 } }
const replace: ReplaceEdit = { ...whole, kind: 'replace', value: { tensor: 'values', offset: 0 }, base: null }

describe('planMerge', () => {
  it('plans what the adapter of a linear model comes to, weights and scales in one float32', () => {
    const model = sampleModel({ layers: 1 })
    const linear = samplePatch(sampleConfig(), sampleTensors(1))
    const { edits } = adapterEdits(readAdapter(linear.adapterConfig, linear.tensors), model)
    const plans = planMerge({ target: model, patches: [0.3, 1].map((weight) => ({ manifest: linear, edits, untied: null, weight, base: null })) })
    expect(plans.map(({ name }) => name)).toEqual(model.tensors.map(({ name }) => name).filter((name) => /[qv]_proj/.test(name)))
    const [a, b] = linear.tensors.filter(({ name }) => name.includes('q_proj'))
    const stored = (of: typeof a, index: number) => ({ patch: index, of: 'patch', file: 'adapter_model.safetensors', offset: of!.offset, length: of!.length, dtype: 'F32' })
    expect(plans[0]).toEqual({
      name: 'model.layers.0.self_attn.q_proj.weight', dtype: 'BF16', shape: [8, 8], rows: 8, cols: 8,
      source: model.tensors.find(({ name }) => name.includes('q_proj')),
      factors: [stored(b, 0), stored(a, 0), stored(b, 1), stored(a, 1)],
      blocks: [{
        first: 0, count: 8,
        contributions: [
          { kind: 'product', rank: 4, scale: Math.fround(0.6), left: { factor: 0, offset: 0, strides: [4, 1] }, right: { factor: 1, offset: 0, strides: [8, 1] } },
          { kind: 'product', rank: 4, scale: 2, left: { factor: 2, offset: 0, strides: [4, 1] }, right: { factor: 3, offset: 0, strides: [8, 1] } },
        ],
      }],
    })
  })

  it('sees experts as one matrix, block by block, and asks for just the bytes between their first and last value', () => {
    const [plan] = planMerge({ target, patches: [patch([expert(2), expert(1)])] })
    expect(plan).toMatchObject({ rows: 18, cols: 8 })
    expect(plan!.blocks.map(({ first, count, contributions }) => [first, count, contributions.length])).toEqual([[0, 6, 0], [6, 6, 1], [12, 6, 1]])
    const [b, a] = [manifest.tensors[1]!, manifest.tensors[0]!]
    // Of B the last value of expert 2 is the last of the tensor; the first of expert 1 the second.
    expect(plan!.factors).toMatchObject([{ offset: b.offset + 2, length: 35 * 2, dtype: 'BF16' }, { offset: a.offset + 16 * 4, length: 32 * 4, dtype: 'F32' }])
    expect(plan!.blocks[2]!.contributions[0]).toMatchObject({ left: { offset: 1, strides: [6, 3] }, right: { offset: 16, strides: [8, 1] } })
  })

  it('cuts edits at the rows where another begins or ends', () => {
    const [plan] = planMerge({ target, patches: [patch([additive]), patch([rows], 0.25)] })
    expect(plan!.blocks.map(({ first, count, contributions }) => [first, count, contributions.map(({ kind }) => kind)])).toEqual([
      [0, 1, ['product']], [1, 2, ['product', 'dense']], [3, 1, ['product']],
    ])
    const [values, first] = [manifest.tensors[2]!, base.tensors[0]!]
    expect(plan!.blocks[1]!.contributions).toMatchObject([
      { left: { offset: 2 }, right: { offset: 16 } },
      { scale: 0.25, value: { patch: 1, of: 'patch', offset: values.offset + 8 * 2, length: 16 * 2, dtype: 'F16' }, base: { patch: 1, of: 'base', file: 'model.safetensors', offset: first.offset + 8 * 4, length: 16 * 4, dtype: 'F32' } },
    ])
    const [split] = planMerge({ target, patches: [patch([dora]), patch([{ ...rows, rows: { first: 3, count: 1 } }])] })
    expect(split!.blocks.map(({ contributions: [one] }) => one?.kind === 'dora' && [one.left.offset, one.magnitude.offset])).toEqual([[0, 0], [6, 3]])
  })

  it('cuts thousands of runs in time linear in their number', () => {
    const embedding = sampleManifest([['first.weight', [60_000, 8]]])
    const values = samplePatch(sampleConfig(), [{ name: 'values', dtype: 'F16', shape: [30_000, 8] }])
    const edits = Array.from({ length: 30_000 }, (_, run): DenseEdit => ({ ...difference, rows: { first: 2 * run, count: 1 }, value: { tensor: 'values', offset: 8 * run }, base: null }))
    const start = process.threadCpuUsage()
    expect(planMerge({ target: embedding, patches: [{ manifest: values, edits, untied: null, weight: 1, base: null }] })[0]!.blocks).toHaveLength(60_000)
    expect(process.threadCpuUsage(start).user / 1000).toBeLessThan(3000)
  })

  it('keeps the weight apart from the scale for DoRA, whose norm knows no weight', () => {
    expect(planMerge({ target, patches: [patch([dora], 0.3)] })[0]!.blocks[0]!.contributions[0]).toMatchObject({ kind: 'dora', scale: 0.5, weight: 0.3, magnitude: { factor: 0, offset: 0 } })
  })

  it('takes the product out again by which the base was changed', () => {
    const initial = (method: 'pissa' | 'olora') => planMerge({ target, patches: [patch([{ ...additive, initial: { method, base: 'first.weight' } }], 0.5)] })[0]!.blocks[0]!.contributions[1]
    expect(initial('pissa')).toEqual({ kind: 'initial', method: 'pissa', rank: 2, scale: -0.5, first: 0, base: { patch: 0, of: 'base', file: 'model.safetensors', offset: base.tensors[0]!.offset, length: 4 * 8 * 4, dtype: 'F32' } })
    expect(initial('olora')).toMatchObject({ method: 'olora', scale: -0.25 })
  })

  it('replaces alone and with the weight 1; else adds the difference, or refuses where there is none', () => {
    const own = { ...replace, base: { tensor: 'first.weight', offset: 0 } }
    const kinds = (...patches: PlannedPatch[]) => planMerge({ target, patches }).flatMap(({ blocks }) => blocks.flatMap(({ contributions }) => contributions.map(({ kind }) => kind)))
    expect(kinds(patch([own]))).toEqual(['replace'])
    expect(kinds(patch([own], 0.5))).toEqual(['dense'])
    expect(kinds(patch([own]), patch([additive]))).toEqual(['dense', 'product'])
    expect(kinds(patch([replace]))).toEqual(['replace'])
    expect(() => kinds(patch([replace], 0.5))).toThrow(/no meaning with the weight 0.5/)
    expect(() => kinds(patch([additive]), patch([replace]))).toThrow(/the order would decide/)
  })

  it('sees a tensor as its products do; values that cover it whole follow', () => {
    const all: DenseEdit = { ...difference, target: 'experts.w', rows: { first: 0, count: 3 }, cols: 48, value: { tensor: 'values', offset: 0 }, base: { tensor: 'experts.w', offset: 0 } }
    const [plan] = planMerge({ target, patches: [patch([all]), patch([expert(0)])] })
    expect(plan!.blocks.map(({ contributions }) => contributions.map((one) => one.kind === 'dense' && one.value.length))).toEqual([[6 * 8 * 2, false], [12 * 8 * 2]])
    expect(() => planMerge({ target, patches: [patch([{ ...all, rows: { first: 0, count: 1 }, cols: 4 }]), patch([expert(0)])] })).toThrow(MergePlanError)
    expect(() => planMerge({ target, patches: [patch([{ ...expert(0), cols: 48, rows: { first: 0, count: 3 } }]), patch([expert(1)])] })).toThrow(/different widths/)
  })

  it('adds the head of untied embeddings, and gives it what is meant for both ends', () => {
    const untied = { name: 'head.weight', source: 'first.weight' }
    const both = planMerge({ target, patches: [{ ...patch([additive]), untied }, patch([{ ...rows, isShared: true }])] })
    expect(both.map(({ name, source, blocks }) => [name, source.name, blocks.map(({ contributions }) => contributions.map(({ kind }) => kind))])).toEqual([
      ['first.weight', 'first.weight', [['product'], ['product', 'dense'], ['product']]],
      ['head.weight', 'first.weight', [[], ['dense'], []]],
    ])
    const own = planMerge({ target, patches: [{ ...patch([{ ...additive, target: 'head.weight' }]), untied }] })
    expect(own.map(({ name, blocks }) => [name, blocks.length])).toEqual([['head.weight', 1]])
    // The input alone is changed: the head begins as the embedding was, and stays so.
    expect(planMerge({ target, patches: [{ ...patch([additive]), untied }] })[1]).toMatchObject({ name: 'head.weight', rows: 4, cols: 8, factors: [], blocks: [{ first: 0, count: 4, contributions: [] }] })
    expect(() => planMerge({ target, patches: [{ ...patch([]), untied }, { ...patch([]), untied: { ...untied, name: 'other.weight' } }] })).toThrow(/head.weight and other.weight/)
    expect(() => planMerge({ target, patches: [patch([{ ...additive, target: 'head.weight' }])] })).toThrow(/head.weight, which the target does not have/)
  })

  it('refuses column norms beside edits of some rows', () => {
    const columns: DoraEdit = { ...dora, axis: 'columns', magnitude: { tensor: 'a', offset: 0 } }
    expect(planMerge({ target, patches: [patch([columns]), patch([additive])] })[0]!.blocks).toHaveLength(1)
    expect(() => planMerge({ target, patches: [patch([columns]), patch([rows])] })).toThrow(/normalises the columns of first.weight/)
  })
})
