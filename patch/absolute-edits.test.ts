import { describe, expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { checkConsumption } from './consumption.ts'
import { adapterEdits } from './edits.ts'
import type { LayOptions } from './laying.ts'
import type { ManifestTensor, ModelManifest } from './manifest.ts'
import { sampleConfig, sampleDigest, sampleManifest, sampleModel, sampleTensors } from './sample-manifests.ts'

const BASE = sampleModel()
/** The same model after more training: every tensor has changed. */
const EVOLVED = withDigests(BASE, (name) => sampleDigest(`evolved ${name}`))

function withDigests(model: ModelManifest, digest: (name: string) => string): ModelManifest {
  return { ...model, tensors: model.tensors.map((tensor): ManifestTensor => ({ ...tensor, digest: digest(tensor.name) })) }
}

function value(name: string, shape: readonly number[], digest = sampleDigest(`trained ${name}`), dtype: AdapterTensor['dtype'] = 'BF16'): AdapterTensor {
  return { name: `base_model.model.${name}`, dtype, shape, digest }
}

function lay(tensors: readonly AdapterTensor[], target: ModelManifest, base: ModelManifest | null, config: Record<string, unknown> = {}, options: Partial<LayOptions> = {}) {
  const adapter = readAdapter(sampleConfig(config), [...sampleTensors(), ...tensors])
  const laid = adapterEdits(adapter, target, base, options)
  const unused = checkConsumption(adapter, laid, laid.reasons)
  return { edits: laid.edits.filter(({ kind }) => kind !== 'additive'), idle: laid.idle, reasons: laid.reasons, codes: [...laid.reasons, ...unused].map(({ severity, code }) => `${severity} ${code}`) }
}

const HEAD = value('lm_head.weight', [32, 8])
const SAVE = { modules_to_save: ['lm_head'] }

describe('full values', () => {
  it('are added as the difference to the base', () => {
    expect(lay([HEAD], EVOLVED, BASE, SAVE)).toMatchObject({
      codes: [], edits: [{ kind: 'dense', target: 'lm_head.weight', rows: { first: 0, count: 32 }, cols: 8, scale: 1, value: { tensor: HEAD.name, offset: 0 }, base: { tensor: 'lm_head.weight', offset: 0 }, consumes: [HEAD.name] }],
    })
  })

  it('replace what is still the base\'s own', () => {
    expect(lay([HEAD], BASE, BASE, SAVE)).toMatchObject({ codes: [], edits: [{ kind: 'replace', base: { tensor: 'lm_head.weight' } }] })
    // Manifests that were read without hashing say nothing about equality.
    expect(lay([HEAD], withDigests(BASE, () => ''), withDigests(BASE, () => ''), SAVE)).toMatchObject({ codes: [], edits: [{ kind: 'dense' }] })
  })

  it('replace where that was asked for, and say both ways out where the base is not known', () => {
    expect(lay([HEAD], EVOLVED, null, SAVE, { absolute: 'replace' })).toMatchObject({ codes: [], edits: [{ kind: 'replace', base: null }] })
    expect(lay([HEAD], EVOLVED, BASE, SAVE, { absolute: 'replace' })).toMatchObject({ codes: [], edits: [{ kind: 'replace', base: null }] })
    expect(lay([HEAD], EVOLVED, null, SAVE).reasons).toMatchObject([{ code: 'modules-to-save', severity: 'refusal', tensor: HEAD.name, remedy: expect.stringMatching(/registry that holds the base.*`replace`/) }])
  })

  it('that are the base\'s own change nothing', () => {
    const copy = value('model.embed_tokens.weight', [32, 8], sampleDigest('model.embed_tokens.weight'))
    expect(lay([copy], EVOLVED, BASE)).toMatchObject({ codes: ['info unchanged-value'], edits: [], idle: [copy.name] })
    expect(lay([copy], EVOLVED, null).codes).toEqual(['refusal modules-to-save'])
  })

  it('of another vocabulary are refused with both sizes', () => {
    const resized = value('model.embed_tokens.weight', [40, 8])
    expect(lay([resized], EVOLVED, BASE).reasons).toMatchObject([{ code: 'vocabulary-size', expected: '[40, 8]', found: '[32, 8]', message: expect.stringMatching(/40 tokens.*has 32/) }])
    const larger = sampleModel({ vocabulary: 40 })
    expect(lay([resized], larger, BASE, {}, {}).reasons).toMatchObject([{ code: 'modules-to-save', found: 'BF16 [32, 8]' }])
    expect(lay([value('model.norm.weight', [9])], EVOLVED, BASE).codes).toEqual(['refusal shape-mismatch'])
  })

  it('that the target has no tensor for are refused by name', () => {
    expect(lay([value('score.weight', [3, 8])], EVOLVED, BASE, { modules_to_save: ['score'] }).reasons).toMatchObject([{ code: 'missing-tensor', expected: 'score.weight', message: expect.stringContaining('modules_to_save') }])
    expect(lay([value('score.weight', [3, 8], 'x', 'I64')], sampleManifest([...BASE.tensors.map(({ name, shape }) => [name, shape] as const), ['score.weight', [3, 8]]]), BASE).codes).toEqual(['refusal factor-dtype'])
  })

  it('of biases are vectors', () => {
    const names = BASE.tensors.map(({ name, shape }) => [name, shape] as const)
    const biased = sampleManifest([...names, ['model.layers.0.self_attn.q_proj.bias', [8]]])
    const bias = value('model.layers.0.self_attn.q_proj.base_layer.bias', [8])
    expect(lay([bias], withDigests(biased, (name) => `new ${name}`), biased, { bias: 'lora_only' })).toMatchObject({ codes: [], edits: [{ kind: 'dense', target: 'model.layers.0.self_attn.q_proj.bias', rows: { first: 0, count: 1 }, cols: 8 }] })
    expect(lay([bias], biased, null, { bias: 'lora_only' }).codes).toEqual(['refusal trained-bias'])
  })
})

describe('copies of embeddings', () => {
  const factors: AdapterTensor[] = [
    { name: 'base_model.model.model.embed_tokens.lora_embedding_A', dtype: 'F32', shape: [4, 32] },
    { name: 'base_model.model.model.embed_tokens.lora_embedding_B', dtype: 'F32', shape: [8, 4] },
  ]
  const config = { target_modules: ['q_proj', 'v_proj', 'embed_tokens'] }
  const own = value('model.embed_tokens.base_layer.weight', [32, 8], sampleDigest('model.embed_tokens.weight'))
  const trained = value('model.embed_tokens.base_layer.weight', [32, 8])

  it('are left out where they are the base\'s own, and added with the factors where not', () => {
    expect(lay([...factors, own], EVOLVED, BASE, config)).toMatchObject({ codes: ['info unchanged-value'], edits: [] })
    expect(lay([...factors, trained], EVOLVED, BASE, config)).toMatchObject({ codes: [], edits: [{ kind: 'dense', target: 'model.embed_tokens.weight' }] })
    expect(lay([...factors, trained], EVOLVED, null, config).codes).toEqual(['refusal embedding-copy'])
  })
})

describe('trained token rows', () => {
  const rows = (count: number) => value('model.embed_tokens.token_adapter.trainable_tokens_delta', [count, 8], 'x', 'F32')

  it('are edits of runs of rows, in the order of the tokens', () => {
    const { edits, codes } = lay([rows(5)], EVOLVED, BASE, { trainable_token_indices: [9, 3, 4, 5, 8] })
    expect(codes).toEqual([])
    expect(edits).toMatchObject([
      { kind: 'dense', rows: { first: 3, count: 3 }, value: { offset: 8 }, base: { tensor: 'model.embed_tokens.weight', offset: 24 } },
      { rows: { first: 8, count: 1 }, value: { offset: 32 }, base: { offset: 64 } },
      { rows: { first: 9, count: 1 }, value: { offset: 0 }, base: { offset: 72 } },
    ])
  })

  it('replace those of an embedding that is the base\'s own', () => {
    expect(lay([rows(1)], BASE, BASE, { trainable_token_indices: [31] }).edits).toMatchObject([{ kind: 'replace', rows: { first: 31, count: 1 } }])
  })

  it('are refused in more runs than a merge can read one by one', () => {
    const large = sampleModel({ vocabulary: 10_000 })
    const every = (step: number) => lay([value('model.embed_tokens.token_adapter.trainable_tokens_delta', [5000, 8], 'x', 'F32')], large, large, { trainable_token_indices: Array.from({ length: 5000 }, (_, index) => step * index) })
    expect(every(1)).toMatchObject({ codes: [], edits: [{ rows: { first: 0, count: 5000 } }] })
    expect(every(2).reasons).toMatchObject([{ code: 'trainable-tokens', found: '5000' }])
  })

  it('are refused once without the base, and beyond the vocabulary', () => {
    expect(lay([rows(2)], EVOLVED, null, { trainable_token_indices: [3, 9] }).codes).toEqual(['refusal trainable-tokens'])
    expect(lay([rows(1)], EVOLVED, BASE, { trainable_token_indices: [32] }).reasons).toMatchObject([{ code: 'vocabulary-size', expected: 'token 32 of 8 values' }])
  })
})

it('an adapter may change a tensor by one pair of factors and one value, not by two of a kind', () => {
  const twice = [value('model.embed_tokens.weight', [32, 8]), value('model.embed_tokens.token_adapter.trainable_tokens_delta', [1, 8])]
  expect(lay(twice, EVOLVED, BASE, { trainable_token_indices: [3] }).codes).toContain('refusal modules-to-save')
  const copied = [value('model.embed_tokens.token_adapter.base_layer.weight', [32, 8]), value('model.embed_tokens.token_adapter.trainable_tokens_delta', [1, 8])]
  expect(lay(copied, EVOLVED, BASE, { trainable_token_indices: [3] }).codes).toContain('refusal tensor-edited-twice')
})
