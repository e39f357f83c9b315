import { expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { adapterEdits } from './edits.ts'
import { aboutOwnBase } from './own-base.ts'
import { sampleConfig, sampleFactors, sampleModel, sampleTensors } from './sample-manifests.ts'

const rows: AdapterTensor = { name: 'base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta', dtype: 'F32', shape: [1, 8] }

it.each([
  ['a module that it lacks', sampleFactors('model.other.q_proj', 8, 8), {}, {}],
  ['layers that it lacks', sampleTensors(3), {}, {}],
  ['another size', sampleTensors(2, 16), {}, {}],
  ['quantized weights', sampleTensors(), {}, { facts: { quantization: 'awq' } }],
  ['another dtype', sampleTensors(), {}, { dtype: 'I8' }],
  ['a token that it lacks', [rows], { target_modules: null, trainable_token_indices: [99] }, {}],
  ['a bias that it lacks', [...sampleFactors('model.layers.0.self_attn.q_proj', 8, 8), { name: 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias', dtype: 'F32', shape: [8] }], { lora_bias: true }, {}],
] as const)('%s: who publishes a patch is told of the base, and of no target', (_, tensors, config, model) => {
  const base = sampleModel(model)
  const refusals = adapterEdits(readAdapter(sampleConfig(config), tensors), base, base, { tied: 'untie' }).reasons.filter(({ severity }) => severity === 'refusal')
  expect(refusals).not.toEqual([])
  for (const { message, remedy } of refusals.map(aboutOwnBase)) {
    expect(message).toMatch(/\b[Tt]he base\b/)
    expect(`${message} ${remedy}`).not.toMatch(/\btarget\b/i)
  }
})
