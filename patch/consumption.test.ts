import { expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import { checkConsumption } from './consumption.ts'
import { adapterEdits } from './edits.ts'
import { SAMPLE_FACTS, sampleConfig, sampleManifest, sampleModel, sampleTensors } from './sample-manifests.ts'

it('holds where every factor belongs to one edit, and names the factor where one belongs to none or to two', () => {
  const adapter = readAdapter(sampleConfig(), sampleTensors())
  const { edits, idle } = adapterEdits(adapter, sampleModel())
  expect(checkConsumption(adapter, { edits, idle }, [])).toEqual([])
  const [first] = edits
  expect(checkConsumption(adapter, { edits: edits.slice(1), idle }, [])).toMatchObject([{ code: 'unused-adapter-tensor', tensor: first?.consumes[0], found: '0 of 32' }, { tensor: first?.consumes[1] }])
  expect(checkConsumption(adapter, { edits: [...edits, ...edits.slice(0, 1)], idle }, [])).toMatchObject([{ tensor: first?.consumes[1], found: 'some more than once' }])
  expect(checkConsumption(adapter, { edits: [], idle }, adapterEdits(adapter, sampleModel({ layers: 1 })).reasons)).toEqual([])
})

it('counts the values of experts, whose one pair of factors lands on many tensors', () => {
  const target = sampleManifest([0, 1, 2].flatMap((expert) => (['w1', 'w3'] as const).map((name) => [`model.layers.0.block_sparse_moe.experts.${expert}.${name}.weight`, [12, 8]] as const)), 'BF16', { ...SAMPLE_FACTS, modelType: 'mixtral' })
  const tensors = [
    { name: 'base_model.model.model.layers.0.mlp.experts.lora_A.weight', dtype: 'F32', shape: [12, 8] },
    { name: 'base_model.model.model.layers.0.mlp.experts.lora_B.weight', dtype: 'F32', shape: [24, 12] },
  ] as const
  const adapter = readAdapter(sampleConfig({ target_modules: [], target_parameters: ['experts.gate_up_proj'] }), tensors)
  const { edits, idle, reasons } = adapterEdits(adapter, target)
  expect(reasons).toEqual([])
  expect(edits).toHaveLength(6)
  expect(checkConsumption(adapter, { edits, idle }, [])).toEqual([])
  expect(checkConsumption(adapter, { edits: edits.slice(1), idle }, [])).toMatchObject([{ tensor: tensors[1].name, found: '240 of 288' }])
  expect(checkConsumption(adapter, { edits: edits.slice(2), idle }, [])).toMatchObject([{ tensor: tensors[0].name, found: '64 of 96' }, { tensor: tensors[1].name }])
})
