import { describe, expect, it } from 'vitest'
import { checkCompatibility } from './compatibility.ts'
import type { CompatibilityInput, PatchPolicy } from './compatibility.ts'
import { LISTED_REASONS } from './reason.ts'
import { REASON_CODES } from './resolution.ts'
import type { AdapterTensor } from './adapter.ts'
import { sampleConfig, sampleDigest, sampleFactors, sampleModel, samplePatch, sampleTensors } from './sample-manifests.ts'

const BASE = { digest: sampleDigest('base'), manifest: sampleModel() }
const DESCENDS = { relation: 'descends', steps: [{ version: 'v2', kind: 'continued-pretraining' }] } as const
const POLICY: PatchPolicy = { targetRange: null, targetVersion: '2.0.0', yanked: null, deprecated: null }

function check(changes: Partial<CompatibilityInput> = {}, tensors: readonly AdapterTensor[] = sampleTensors(), config = sampleConfig()) {
  const { resolution, edits } = checkCompatibility({
    patch: samplePatch(config, tensors), base: BASE, target: { digest: sampleDigest('target'), manifest: sampleModel() }, lineage: DESCENDS, ...changes,
  })
  return { verdict: resolution.verdict, codes: resolution.reasons.map(({ severity, code }) => `${severity} ${code}`), reasons: resolution.reasons, edits }
}

function target(facts: Parameters<typeof sampleModel>[0]) {
  return { digest: sampleDigest('target'), manifest: sampleModel(facts) }
}

describe('verdicts', () => {
  it('identical, whatever the lineage says, where the target is the base', () => {
    const answer = check({ target: BASE, lineage: { relation: 'unrelated', steps: [] } })
    expect(answer).toMatchObject({ verdict: 'identical', codes: ['info identical'] })
    expect(answer.edits).toHaveLength(4)
  })

  it('portable on a descendant', () => {
    const answer = check()
    expect(answer).toMatchObject({ verdict: 'portable', codes: ['info descends'] })
    expect(answer.reasons[0]?.message).toContain('in one step: v2 (continued-pretraining)')
    expect(answer.edits).toHaveLength(4)
  })

  it('portable-with-warnings where text or layers differ', () => {
    expect(check({ target: target({ facts: { tokenizerDigest: sampleDigest('new') } }) })).toMatchObject({ verdict: 'portable-with-warnings', codes: ['info descends', 'warning tokenizer-changed'] })
    expect(check({ target: target({ facts: { chatTemplateDigest: sampleDigest('new') } }) }).codes).toContain('warning chat-template-changed')
    expect(check({ target: target({ layers: 3 }) }).codes).toContain('warning more-layers')
  })

  it('unverified where nobody vouches for it', () => {
    expect(check({ lineage: { relation: 'unrelated', steps: [] } })).toMatchObject({ verdict: 'unverified', codes: ['warning unrelated'] })
    const head = sampleFactors('lm_head', 32, 8)
    expect(check({ target: target({ facts: { tokenizerDigest: null } }) }, head, sampleConfig({ target_modules: ['lm_head'] }))).toMatchObject({ verdict: 'unverified', codes: ['info descends', 'warning tokenizer-changed-under-edit'] })
  })

  it('incompatible with any refusal, and then without edits', () => {
    const answer = check({ target: target({ layers: 1 }) })
    expect(answer.verdict).toBe('incompatible')
    expect(answer.codes).toContain('refusal fewer-layers')
    expect(answer.edits).toEqual([])
    expect(check({ target: BASE }, sampleTensors(), sampleConfig({ use_dora: true })).verdict).toBe('incompatible')
  })
})

describe('architecture', () => {
  it('refuses another model type without common descent, though names and shapes agree', () => {
    const mistral = target({ facts: { modelType: 'mistral' } })
    expect(check({ target: mistral, lineage: { relation: 'unrelated', steps: [] } }).reasons).toContainEqual(expect.objectContaining({ code: 'architecture', severity: 'refusal', expected: 'llama', found: 'mistral' }))
    expect(check({ target: mistral })).toMatchObject({ verdict: 'portable-with-warnings' })
  })

  it('is told before the shapes that differ because of it', () => {
    const { codes } = check({ target: target({ hidden: 16, facts: { modelType: 'gemma2' } }), lineage: { relation: 'unrelated', steps: [] } })
    expect(codes[0]).toBe('refusal architecture')
    expect(codes).toContain('refusal shape-mismatch')
  })
})

describe('policy', () => {
  it.each([
    [{ targetRange: '^2.0.0' }, 'portable', []],
    [{ targetRange: '^1.0.0' }, 'incompatible', ['refusal outside-declared-range']],
    [{ targetRange: '>=2', targetVersion: 'v2.1.0' }, 'portable', []],
    [{ targetRange: '>=2', targetVersion: '2025-06' }, 'unverified', ['warning declared-range-unchecked']],
    [{ targetRange: 'nonsense' }, 'unverified', ['warning declared-range-unchecked']],
    [{ yanked: { reason: 'wrong data' } }, 'portable-with-warnings', ['warning yanked']],
    [{ deprecated: 'use 2.0.0' }, 'portable-with-warnings', ['warning deprecated']],
  ] as const)('%o is %s', (changes, verdict, codes) => {
    expect(check({ policy: { ...POLICY, ...changes } })).toMatchObject({ verdict, codes: ['info descends', ...codes] })
  })

  it('does not hold the base itself to the declared range, but says that the patch is yanked', () => {
    expect(check({ target: BASE, policy: { ...POLICY, targetRange: '^1.0.0', yanked: { reason: null } } })).toMatchObject({ verdict: 'identical', codes: ['info identical', 'warning yanked'] })
  })
})

describe('reasons', () => {
  it('are limited for each code, and counted', () => {
    const tensors = Array.from({ length: 50 }, (_, index) => sampleFactors(`model.other_${index}.q_proj`, 8, 8)).flat()
    const { reasons } = check({}, tensors, sampleConfig({ target_modules: ['q_proj'] }))
    const missing = reasons.filter(({ code }) => code === 'missing-tensor')
    expect(missing).toHaveLength(LISTED_REASONS + 1)
    expect(missing.at(-1)?.message).toContain('30 more')
  })

  it('have codes of the closed list only, each with what was expected and found where it is about a tensor', () => {
    const answers = [check({ target: target({ hidden: 16 }) }), check({ target: target({ layers: 1, dtype: 'I8' }) }), check({ target: target({ facts: { quantization: 'awq' } }) })]
    for (const reason of answers.flatMap((answer) => answer.reasons)) {
      expect(REASON_CODES).toContain(reason.code)
      if (reason.severity === 'refusal') expect(reason).toMatchObject({ expected: expect.any(String), found: expect.any(String), remedy: expect.any(String) })
    }
  })
})
