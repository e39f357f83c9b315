import { describe, expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import { analysisBytes, planAnalysis, sampledRows } from './analysis-plan.ts'
import { adapterEdits } from './edits.ts'
import type { ModelManifest } from './manifest.ts'
import { sampleConfig, sampleModel, samplePatch, sampleTensors } from './sample-manifests.ts'

const patch = samplePatch(sampleConfig(), sampleTensors(1))

function plan(target: ModelManifest, base: ModelManifest) {
  const { edits } = adapterEdits(readAdapter(patch.adapterConfig, patch.tensors), target, base)
  return planAnalysis({ patch, base, target, edits })
}

describe('planAnalysis', () => {
  it('reads every changed tensor of the target beside the one of the base, and a few rows of the base first', () => {
    const target = sampleModel({ layers: 1, hidden: 32 }), base = sampleModel({ layers: 1, hidden: 32, dtype: 'F32' })
    const big = samplePatch(sampleConfig(), sampleTensors(1, 32))
    const { edits } = adapterEdits(readAdapter(big.adapterConfig, big.tensors), target, base)
    const { tensors, unmeasured } = planAnalysis({ patch: big, base, target, edits })
    expect(unmeasured).toEqual([])
    expect(tensors.map(({ name, dtype, baseDtype, cols }) => [name, dtype, baseDtype, cols])).toEqual([
      ['model.layers.0.self_attn.q_proj.weight', 'BF16', 'F32', 32], ['model.layers.0.self_attn.v_proj.weight', 'BF16', 'F32', 32],
    ])
    const [q] = tensors
    const at = (of: ModelManifest) => of.tensors.find(({ name }) => name === q!.name)!.offset
    expect(q!.factors).toHaveLength(2)
    expect(q!.runs).toEqual([{
      block: { first: 0, count: 32, contributions: [expect.objectContaining({ kind: 'product', rank: 4, scale: 2 })] },
      target: { file: 'model.safetensors', offset: at(target), length: 32 * 32 * 2 },
      base: { file: 'model.safetensors', offset: at(base), length: 32 * 32 * 4 },
      sample: [2, 6, 10, 14, 18, 22, 26, 30].map((row) => ({ row, base: { file: 'model.safetensors', offset: at(base) + row * 128, length: 128 } })),
    }])
    expect(analysisBytes(tensors)).toBe((32 + 16) * 32 * 6)
  })

  it('finds the tensor of the base by what lands on it, under another prefix too', () => {
    const { tensors, unmeasured } = plan(sampleModel({ layers: 1, prefix: 'model.' }), sampleModel({ layers: 1, prefix: '' }))
    expect(unmeasured).toEqual([])
    expect(tensors.map(({ name }) => name)).toEqual(['model.layers.0.self_attn.q_proj.weight', 'model.layers.0.self_attn.v_proj.weight'])
  })

  it('says of each tensor that it leaves out why', () => {
    const base = sampleModel({ layers: 1 })
    const without = (change: (tensor: ModelManifest['tensors'][number]) => object) => plan(sampleModel({ layers: 1 }), { ...base, tensors: base.tensors.map((tensor) => (tensor.name.includes('q_proj') ? { ...tensor, ...change(tensor) } : tensor)) })
    const left = [
      without(() => ({ name: 'elsewhere' })),
      without(() => ({ shape: [4, 16] })),
      without(() => ({ dtype: 'I8' })),
    ].map(({ tensors, unmeasured }) => [tensors.length, ...unmeasured.map(({ name, reason }) => `${name}: ${reason}`)])
    const q = 'model.layers.0.self_attn.q_proj.weight'
    expect(left).toEqual([
      [1, `${q}: The base has no such tensor.`],
      [1, `${q}: The base's ${q} has the shape [4, 16], the target's [8, 8].`],
      [1, `${q}: The base's ${q} is stored as I8, which is not compared.`],
    ])
  })
})

describe('sampledRows', () => {
  it('spreads over the tensor, and takes all of a small one and none of a single row', () => {
    expect(sampledRows(1, 8)).toEqual([])
    expect(sampledRows(3, 8)).toEqual([0, 1, 2])
    expect(sampledRows(4096, 4)).toEqual([512, 1536, 2560, 3584])
    for (const rows of [2, 7, 9, 100, 32000]) {
      const found = sampledRows(rows, 8)
      expect(new Set(found).size).toBe(Math.min(8, rows))
      expect(found.every((row) => Number.isInteger(row) && row >= 0 && row < rows)).toBe(true)
    }
  })
})
