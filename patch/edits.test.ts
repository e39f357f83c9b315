import { describe, expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { adapterEdits } from './edits.ts'
import type { ModelManifest } from './manifest.ts'
import { SAMPLE_FACTS, sampleConfig, sampleFactors, sampleManifest, sampleModel, sampleTensors } from './sample-manifests.ts'

function lay(tensors: readonly AdapterTensor[], target: ModelManifest, config: Record<string, unknown> = {}, base: ModelManifest | null = null) {
  const { edits, reasons } = adapterEdits(readAdapter(sampleConfig({ target_modules: null, ...config }), tensors), target, base)
  return { edits, reasons, codes: reasons.map(({ severity, code }) => `${severity} ${code}`), targets: edits.map((edit) => edit.target) }
}

const Q = 'model.layers.0.self_attn.q_proj'

describe('linear layers', () => {
  it('puts B on the left and A on the right', () => {
    const { edits, reasons } = lay(sampleTensors(1), sampleModel({ layers: 1 }))
    expect(reasons).toEqual([])
    expect(edits[1]).toEqual({
      kind: 'additive', target: 'model.layers.0.self_attn.v_proj.weight', rows: { first: 0, count: 4 }, cols: 8, isShared: false, rank: 4, scale: 2, initial: null,
      left: { tensor: 'base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight', offset: 0, strides: [4, 1] },
      right: { tensor: 'base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight', offset: 0, strides: [8, 1] },
      consumes: ['base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight', 'base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight'],
    })
  })

  it('names tensor, expected and found of another shape', () => {
    const { reasons } = lay(sampleTensors(2), sampleModel({ hidden: 16 }))
    expect(reasons[0]).toMatchObject({ code: 'shape-mismatch', severity: 'refusal', tensor: `${Q}.weight`, expected: '[8, 8]', found: '[16, 16]' })
    expect(reasons).toHaveLength(4)
  })

  it('refuses a quantized target and a dtype that cannot be merged', () => {
    expect(lay(sampleTensors(), sampleModel({ facts: { quantization: 'gptq' } })).codes).toEqual(['refusal quantized-target'])
    expect(lay(sampleTensors(1), sampleModel({ dtype: 'I8' })).reasons[0]).toMatchObject({ code: 'target-dtype', tensor: `${Q}.weight`, found: 'I8' })
  })

  it('refuses a module that the target does not have', () => {
    const { reasons } = lay(sampleFactors('model.layers.0.self_attn.k_proj', 8, 8), sampleModel())
    expect(reasons).toMatchObject([{ code: 'missing-tensor', tensor: 'base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight', expected: 'model.layers.0.self_attn.k_proj.weight', found: 'none' }])
  })
})

describe('layouts with the factors transposed', () => {
  const gpt2 = sampleManifest(
    [['transformer.h.0.attn.c_attn.weight', [8, 24]], ['transformer.h.0.attn.c_proj.weight', [8, 8]], ['transformer.h.0.mlp.c_fc.weight', [8, 32]], ['score.weight', [8, 8]]],
    'F32', { ...SAMPLE_FACTS, modelType: 'gpt2' },
  )
  const tensors = [...sampleFactors('transformer.h.0.attn.c_attn', 24, 8), ...sampleFactors('transformer.h.0.attn.c_proj', 8, 8), ...sampleFactors('transformer.h.0.mlp.c_fc', 32, 8)]

  it.each([true, false])('follows the class of GPT-2\'s layers, square ones too, with fan_in_fan_out %s', (flag) => {
    const { edits, codes } = lay([...tensors, ...sampleFactors('score', 8, 8)], gpt2, { fan_in_fan_out: flag })
    expect(codes).toEqual([])
    expect(Object.fromEntries(edits.map((edit) => [edit.target, 'left' in edit && edit.left]))).toEqual({
      'score.weight': { tensor: 'base_model.model.score.lora_B.weight', offset: 0, strides: [4, 1] },
      'transformer.h.0.attn.c_attn.weight': { tensor: 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight', offset: 0, strides: [1, 8] },
      'transformer.h.0.attn.c_proj.weight': { tensor: 'base_model.model.transformer.h.0.attn.c_proj.lora_A.weight', offset: 0, strides: [1, 8] },
      'transformer.h.0.mlp.c_fc.weight': { tensor: 'base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight', offset: 0, strides: [1, 8] },
    })
  })

  it('follows the flag in other models, and refuses where the shape contradicts it', () => {
    const other = sampleManifest([['layer.weight', [8, 24]]])
    expect(lay(sampleFactors('layer', 24, 8), other, { fan_in_fan_out: true }).edits[0]).toMatchObject({ left: { strides: [1, 8] }, right: { strides: [1, 4] } })
    expect(lay(sampleFactors('layer', 24, 8), other).reasons).toMatchObject([{ code: 'layout-mismatch', expected: '[24, 8]', found: '[8, 24]' }])
  })

  const embedding: AdapterTensor[] = [
    { name: 'base_model.model.model.embed_tokens.lora_embedding_A', dtype: 'F32', shape: [4, 32] },
    { name: 'base_model.model.model.embed_tokens.lora_embedding_B', dtype: 'F32', shape: [8, 4] },
  ]

  it('transposes the factors of embeddings', () => {
    const { edits, codes } = lay(embedding, sampleModel())
    expect(codes).toEqual([])
    expect(edits).toMatchObject([{ target: 'model.embed_tokens.weight', rank: 4, left: { tensor: embedding[0]?.name, strides: [1, 32] }, right: { tensor: embedding[1]?.name, strides: [1, 4] } }])
  })

  it('refuses another vocabulary, and ties', () => {
    expect(lay(embedding, sampleModel({ vocabulary: 40 })).reasons).toMatchObject([{ code: 'vocabulary-size', tensor: 'model.embed_tokens.weight', expected: '[32, 8]', found: '[40, 8]' }])
    expect(lay(embedding, sampleModel({ facts: { tieWordEmbeddings: true } })).codes).toEqual(['refusal tied-weights'])
    expect(lay(sampleFactors('lm_head', 32, 8), sampleManifest([['model.embed_tokens.weight', [32, 8]]], 'BF16', { ...SAMPLE_FACTS, tieWordEmbeddings: true })).codes).toEqual(['refusal tied-weights'])
    expect(lay(sampleFactors('lm_head', 32, 8), sampleModel()).targets).toEqual(['lm_head.weight'])
  })
})

describe('names', () => {
  it('finds the tensors of a checkpoint without the prefix', () => {
    expect(lay(sampleTensors(1), sampleModel({ layers: 1, prefix: '' })).targets).toEqual(['layers.0.self_attn.q_proj.weight', 'layers.0.self_attn.v_proj.weight'])
  })

  it('finds the tensors of a checkpoint with one more prefix', () => {
    expect(lay(sampleTensors(1, 8, ''), sampleModel({ layers: 1 })).targets).toEqual([`${Q}.weight`, 'model.layers.0.self_attn.v_proj.weight'])
  })

  it('prefers the very name', () => {
    const target = sampleManifest([['a.q_proj.weight', [8, 8]], ['q_proj.weight', [8, 8]], ['b.a.q_proj.weight', [8, 8]]])
    expect(lay(sampleFactors('a.q_proj', 8, 8), target).targets).toEqual(['a.q_proj.weight'])
  })

  it('does not drop a prefix that the checkpoint knows', () => {
    const target = sampleManifest([['vision.other.weight', [8, 8]], ['q_proj.weight', [8, 8]]])
    expect(lay(sampleFactors('vision.q_proj', 8, 8), target).codes).toEqual(['refusal missing-tensor'])
  })

  it('refuses ambiguity: two prefixes for one module, two for two, two modules for one tensor', () => {
    const twice = sampleManifest([['encoder.layers.0.q.weight', [8, 8]], ['decoder.layers.0.q.weight', [8, 8]], ['decoder.layers.0.v.weight', [8, 8]], ['encoder.layers.0.k.weight', [8, 8]]])
    expect(lay(sampleFactors('layers.0.q', 8, 8), twice).reasons).toMatchObject([{ code: 'ambiguous-tensor', found: 'encoder.layers.0.q.weight or decoder.layers.0.q.weight' }])
    expect(lay([...sampleFactors('layers.0.v', 8, 8), ...sampleFactors('layers.0.k', 8, 8)], twice).codes).toEqual(['refusal ambiguous-tensor'])
    const one = sampleManifest([['q.weight', [8, 8]]])
    expect(lay([...sampleFactors('q', 8, 8), ...sampleFactors('model.q', 8, 8)], one).codes).toEqual(['refusal tensor-edited-twice'])
  })
})

describe('layers', () => {
  it('refuses a target with fewer, by name', () => {
    const { reasons } = lay(sampleTensors(4), sampleModel({ layers: 2 }))
    expect(reasons).toMatchObject([
      { code: 'fewer-layers', severity: 'refusal', tensor: 'base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight', expected: 'layers 2-3', found: 'layers 0-1' },
      { code: 'fewer-layers', severity: 'refusal' },
    ])
  })

  it('refuses fewer layers under another prefix as well', () => {
    expect(lay(sampleTensors(4), sampleModel({ layers: 2, prefix: '' })).codes).toEqual(['refusal fewer-layers', 'refusal fewer-layers'])
    expect(lay(sampleTensors(4, 8, ''), sampleModel({ layers: 2 })).codes).toEqual(['refusal fewer-layers', 'refusal fewer-layers'])
  })

  it('warns of layers that neither the adapter nor the base knows', () => {
    expect(lay(sampleTensors(2), sampleModel({ layers: 5 })).reasons).toMatchObject([{ code: 'more-layers', severity: 'warning', found: 'layers 0-4', expected: 'layers 0-1' }])
    expect(lay(sampleTensors(2), sampleModel({ layers: 5 }), {}, sampleModel({ layers: 2 })).codes).toEqual(['warning more-layers'])
  })

  it('is silent about layers that the base has too and the adapter left out', () => {
    expect(lay(sampleTensors(2), sampleModel({ layers: 5 }), {}, sampleModel({ layers: 5 })).codes).toEqual([])
    const second = sampleTensors(2).filter(({ name }) => name.includes('layers.1.'))
    expect(lay(second, sampleModel(), {}).codes).toEqual([])
    expect(lay(second, sampleModel({ layers: 3 }), {}, sampleModel()).reasons).toMatchObject([{ code: 'more-layers', message: expect.stringContaining('layers 2,') }])
  })
})
