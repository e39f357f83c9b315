import { describe, expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { checkConsumption } from './consumption.ts'
import { adapterEdits } from './edits.ts'
import type { LayOptions } from './laying.ts'
import type { ModelManifest } from './manifest.ts'
import { SAMPLE_FACTS, sampleConfig, sampleDigest, sampleFactors, sampleManifest, sampleModel, sampleTensors } from './sample-manifests.ts'

const TIED = sampleManifest(sampleModel().tensors.filter(({ name }) => name !== 'lm_head.weight').map(({ name, shape }) => [name, shape]), 'BF16', { ...SAMPLE_FACTS, tieWordEmbeddings: true })
const EVOLVED: ModelManifest = { ...TIED, tensors: TIED.tensors.map((tensor) => ({ ...tensor, digest: sampleDigest(`evolved ${tensor.name}`) })) }
const EMBED = 'model.embed_tokens.weight'

const embedding: AdapterTensor[] = [
  { name: 'base_model.model.model.embed_tokens.lora_embedding_A', dtype: 'F32', shape: [4, 32] },
  { name: 'base_model.model.model.embed_tokens.lora_embedding_B', dtype: 'F32', shape: [8, 4] },
]
const head = sampleFactors('lm_head', 32, 8)
const rows = (module: string, count: number): AdapterTensor => ({ name: `base_model.model.${module}.token_adapter.trainable_tokens_delta`, dtype: 'F32', shape: [count, 8], digest: 'x' })
const copy = (name: string, digest: string): AdapterTensor => ({ name: `base_model.model.${name}`, dtype: 'BF16', shape: [32, 8], digest })

function lay(tensors: readonly AdapterTensor[], target: ModelManifest, base: ModelManifest | null = TIED, config: Record<string, unknown> = {}, options: Partial<LayOptions> = {}) {
  const adapter = readAdapter(sampleConfig({ target_modules: null, ...config }), tensors)
  const laid = adapterEdits(adapter, target, base, options)
  const unused = checkConsumption(adapter, laid, laid.reasons)
  return { ...laid, places: laid.edits.map(({ target: name, kind, isShared }) => `${kind} ${name}${isShared ? ' shared' : ''}`), codes: [...laid.reasons, ...unused].map(({ severity, code }) => `${severity} ${code}`) }
}

describe('one end of tied embeddings', () => {
  it.each([['the head', head, 'output'], ['the embedding', embedding, 'input']])('%s is refused, with the way out', (_, tensors, end) => {
    const { reasons, codes } = lay(tensors, EVOLVED)
    expect(codes).toEqual(['refusal tied-weights'])
    expect(reasons[0]).toMatchObject({ message: expect.stringContaining(`the ${end} alone`), remedy: expect.stringContaining('`untie`') })
  })

  it('gets a head of its own where that was asked for', () => {
    const untied = { name: 'lm_head.weight', source: EMBED }
    expect(lay(head, EVOLVED, TIED, {}, { tied: 'untie' })).toMatchObject({ codes: [], untied, places: ['additive lm_head.weight'] })
    expect(lay(embedding, EVOLVED, TIED, {}, { tied: 'untie' })).toMatchObject({ codes: [], untied, places: [`additive ${EMBED}`] })
    expect(lay([...embedding, ...head], EVOLVED, TIED, {}, { tied: 'untie' })).toMatchObject({ codes: [], untied, places: ['additive lm_head.weight', `additive ${EMBED}`] })
    expect(lay([copy('lm_head.weight', 'new'), ...sampleTensors()], EVOLVED, TIED, { modules_to_save: ['lm_head'] }, { tied: 'untie' })).toMatchObject({ codes: [], untied, edits: [{ kind: 'dense', target: 'lm_head.weight', base: { tensor: EMBED } }, {}, {}, {}, {}] })
    expect(lay([rows('lm_head', 1)], EVOLVED, TIED, { trainable_token_indices: { lm_head: [7] } }, { tied: 'untie' })).toMatchObject({ codes: [], untied, places: ['dense lm_head.weight'] })
  })

  it('is no matter where nothing changes the vocabulary', () => {
    expect(lay(sampleTensors(), EVOLVED, TIED, {}, { tied: 'untie' })).toMatchObject({ codes: [], untied: null })
  })

  it('cannot be untied in other models than decoders, nor where more than one tensor may be meant', () => {
    const encoder = { ...EVOLVED, facts: { ...EVOLVED.facts, architectures: ['T5ForConditionalGeneration'] } }
    expect(lay(head, encoder, TIED, {}, { tied: 'untie' }).codes).toEqual(['refusal tied-weights'])
    const twice = sampleManifest([...TIED.tensors.map(({ name, shape }) => [name, shape] as const), ['lm_head.weight', [32, 8]]], 'BF16', TIED.facts)
    expect(lay(head, twice, TIED, {}, { tied: 'untie' }).codes).toEqual(['refusal tied-weights'])
  })
})

describe('both ends of tied embeddings', () => {
  it('of ensure_weight_tying have a pair of factors each, which may differ: on a bfloat16 base PEFT does not keep them equal', () => {
    const config = { target_modules: ['embed_tokens'], ensure_weight_tying: true }
    expect(lay([...embedding, ...head], EVOLVED, TIED, config).codes).toEqual(['refusal tied-weights', 'refusal tied-weights'])
    expect(lay([...embedding, ...head], EVOLVED, TIED, config, { tied: 'untie' })).toMatchObject({ codes: [], untied: { name: 'lm_head.weight' }, places: ['additive lm_head.weight', `additive ${EMBED}`] })
    expect(lay([...embedding, ...head], sampleModel(), TIED, config)).toMatchObject({ codes: [], places: ['additive lm_head.weight', `additive ${EMBED}`] })
  })

  it('take full values that are the same for both', () => {
    const config = { modules_to_save: ['embed_tokens'] }
    const both = (digest: string) => [...sampleTensors(), copy(EMBED, 'new'), copy('lm_head.weight', digest)]
    expect(lay(both('new'), EVOLVED, TIED, config).places.filter((place) => place.includes('embed'))).toEqual([`dense ${EMBED} shared`])
    expect(lay(both('new'), EVOLVED, TIED, config).codes).toEqual([])
    expect(lay(both('other'), EVOLVED, TIED, config).codes).toEqual(['refusal tied-weights', 'refusal tied-weights'])
  })

  it('take trained token rows, as PEFT ties them by itself', () => {
    const list = { trainable_token_indices: [3] }
    expect(lay([rows('model.embed_tokens', 1)], EVOLVED, TIED, list)).toMatchObject({ codes: [], places: [`dense ${EMBED} shared`] })
    const dict = { trainable_token_indices: { embed_tokens: [3], lm_head: [7] } }
    expect(lay([rows('model.embed_tokens', 1), rows('lm_head', 1)], EVOLVED, TIED, dict).codes).toEqual(['refusal tied-weights', 'refusal tied-weights'])
    expect(lay([rows('model.embed_tokens', 1)], sampleModel(), TIED, list).codes).toEqual(['refusal tied-weights'])
    expect(lay([rows('model.embed_tokens', 1)], EVOLVED, sampleModel(), list).codes).toEqual(['refusal tied-weights'])
  })
})
