import { describe, expect, it } from 'vitest'
import type { AdapterTensor } from './adapter.ts'
import { checkCompatibility } from './compatibility.ts'
import { planMerge } from './merge-plan.ts'
import { chooseStorage } from './merge-storage.ts'
import { sampleConfig, sampleDigest, sampleFactors, sampleManifest, sampleModel, samplePatch } from './sample-manifests.ts'
import type { ModelManifest } from './manifest.ts'

/** More than a call can take as arguments: they lie on the stack, which holds about 125,000. */
const MANY = 130_000
const numbers = Array.from({ length: MANY }, (_, at) => at)

function check(tensors: readonly AdapterTensor[], config: Record<string, unknown>, target: ModelManifest = sampleModel()) {
  const version = { digest: sampleDigest('base'), manifest: target }
  const manifest = samplePatch(sampleConfig(config), tensors)
  return { manifest, ...checkCompatibility({ patch: manifest, base: version, target: version, lineage: { relation: 'same', steps: [] } }) }
}

const value = (name: string): AdapterTensor => ({ name: `base_model.model.${name}`, dtype: 'F32', shape: [8] })

describe('130,000 tensors', () => {
  it.each([
    ['full values that the target lacks', numbers.map((at) => value(`m${at}.weight`)), { modules_to_save: ['x'] }, 'missing-tensor'],
    ['full values under names that PEFT would leave out', numbers.map((at) => value(`m${at}.base_layer.weight`)), { modules_to_save: ['x'] }, 'embedding-copy'],
    ['factors that the config does not target', numbers.flatMap((at) => sampleFactors(`m${at}.q_proj`, 8, 8)), { target_modules: ['none'] }, 'untargeted-module'],
    ['biases beside none', numbers.map((at) => value(`m${at}.modules_to_save.bias`)), {}, 'trained-bias'],
  ] as const)('%s are refused', (_, tensors, config, code) => {
    const { resolution } = check(tensors, config)
    expect(resolution.reasons).toContainEqual(expect.objectContaining({ code, severity: 'refusal' }))
  })

  it('of layers, each changed, are laid and planned', () => {
    const target = sampleManifest(numbers.map((at) => [`layers.${at}.q_proj.weight`, [1, 1]]), 'F32')
    const tensors = numbers.flatMap((at) => sampleFactors(`layers.${at}.q_proj`, 1, 1, 1))
    const { manifest, resolution, edits } = check(tensors, { r: 1, target_modules: ['q_proj'] }, target)
    expect([resolution.verdict, edits.length]).toEqual(['identical', MANY])
    const plans = planMerge({ target, patches: [{ manifest, edits, untied: null, weight: 1, base: null }] })
    expect(chooseStorage(plans, null).storage).toBe('computed')
  }, 60_000)

  it('of experts in one tensor have an edit each, and a block each', () => {
    const target = sampleManifest([['mlp.experts.down_proj', [MANY, 1, 1]]], 'F32')
    const tensors: AdapterTensor[] = [
      { name: 'base_model.model.mlp.experts.lora_A.weight', dtype: 'F32', shape: [MANY, 1] },
      { name: 'base_model.model.mlp.experts.lora_B.weight', dtype: 'F32', shape: [1, MANY] },
    ]
    const { manifest, resolution, edits } = check(tensors, { r: 1, target_modules: [], target_parameters: ['experts.down_proj'] }, target)
    expect([resolution.reasons.filter(({ severity }) => severity === 'refusal'), edits.length]).toEqual([[], MANY])
    const plans = planMerge({ target, patches: [{ manifest, edits, untied: null, weight: 1, base: null }] })
    expect(plans[0]!.blocks).toHaveLength(MANY)
    expect(chooseStorage(plans, null)).toMatchObject({ storage: 'computed', reason: expect.stringContaining('at most 1') })
  })
})
