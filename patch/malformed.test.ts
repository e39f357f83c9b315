import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AdapterError, readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { adapterEdits } from './edits.ts'
import { sampleConfig, sampleFactors, sampleModel, sampleTensors } from './sample-manifests.ts'

/** An adapter as ingest sees it: the text of its config and the header entries of its file. */
interface Sample {
  readonly config: string
  readonly tensors: readonly AdapterTensor[]
}

const VALID: Sample = { config: sampleConfig(), tensors: sampleTensors(3) }
const TARGET = sampleModel({ layers: 3 })

/** `accepted`, or the code of the error or of the first refusal; anything else that is thrown fails the test. */
function outcome({ config, tensors }: Sample): string {
  try {
    const { reasons } = adapterEdits(readAdapter(config, tensors), TARGET)
    return reasons.find(({ severity }) => severity === 'refusal')?.code ?? 'accepted'
  } catch (error) {
    if (error instanceof AdapterError) return error.code
    throw error
  }
}

function withConfig(change: (config: Record<string, unknown>) => Record<string, unknown>): Sample {
  return { ...VALID, config: JSON.stringify(change(JSON.parse(VALID.config))) }
}

function withTensor(index: number, change: (tensor: AdapterTensor) => AdapterTensor[]): Sample {
  const at = index % VALID.tensors.length
  return { ...VALID, tensors: VALID.tensors.flatMap((tensor, position) => (position === at ? change(tensor) : [tensor])) }
}

const index = fc.nat(11)
const junk = fc.oneof(fc.constant([[]]), fc.constant('x'), fc.constant(-1), fc.constant(0.5), fc.constant([1, 'x']), fc.constant({ x: 'y' }))
const word = fc.stringMatching(/^[a-z_]{3,12}$/)

/** Each makes one thing of a valid adapter wrong, so that it can never be right to accept the outcome. */
const MUTATIONS: Readonly<Record<string, fc.Arbitrary<Sample>>> = {
  'a config cut off': fc.nat(VALID.config.length - 1).map((end) => ({ ...VALID, config: VALID.config.slice(0, end) })),
  'a key twice': fc.constantFrom(...Object.keys(JSON.parse(VALID.config))).map((key) => ({ ...VALID, config: VALID.config.replace('{', `{"${key}":null,`) })),
  'a key of another type': fc.tuple(fc.constantFrom('r', 'lora_alpha', 'bias', 'use_rslora', 'fan_in_fan_out', 'use_dora', 'rank_pattern', 'alpha_pattern', 'modules_to_save', 'peft_type', 'layers_to_transform'), junk)
    .filter(([key, value]) => !(key === 'lora_alpha' && typeof value === 'number') && !(key === 'layers_to_transform' && value === -1))
    .map(([key, value]) => withConfig((config) => ({ ...config, [key]: value }))),
  'an unknown key': fc.tuple(word, junk).map(([key, value]) => withConfig((config) => ({ ...config, [`use_${key}_v2`]: value }))),
  'another rank in the config': fc.integer({ min: 1, max: 64 }).filter((rank) => rank !== 4).map((r) => withConfig((config) => ({ ...config, r }))),
  'a rank pattern that contradicts the file': fc.tuple(fc.constantFrom('q_proj', '.*v_proj', 'layers.1.self_attn.q_proj'), fc.integer({ min: 5, max: 99 })).map(([key, rank]) => withConfig((config) => ({ ...config, rank_pattern: { [key]: rank } }))),
  'a pattern that cannot be read': fc.constantFrom('(', '(?=x)', '[', 'x**', '{', '\\1', '*').map((key) => withConfig((config) => ({ ...config, alpha_pattern: { [key]: 2 } }))),
  'a factor missing': index.map((at) => withTensor(at, () => [])),
  'a factor twice': index.map((at) => withTensor(at, (tensor) => [tensor, tensor])),
  'a factor with another rank': fc.tuple(index, fc.integer({ min: 1, max: 2 ** 31 })).filter(([, rank]) => rank !== 4)
    .map(([at, rank]) => withTensor(at, (tensor) => [{ ...tensor, shape: tensor.shape.map((size, axis) => (axis === (tensor.name.includes('lora_A') ? 0 : 1) ? rank : size)) }])),
  'a factor for another width': fc.tuple(index, fc.integer({ min: 1, max: 2 ** 31 }))
    .map(([at, width]) => withTensor(at, (tensor) => [{ ...tensor, shape: tensor.shape.map((size, axis) => (axis === (tensor.name.includes('lora_A') ? 1 : 0) ? width + size : size)) }])),
  'a factor with other dimensions': fc.tuple(index, fc.constantFrom([], [4], [4, 8, 1], [4, 8, 1, 1], [0, 0])).map(([at, shape]) => withTensor(at, (tensor) => [{ ...tensor, shape }])),
  'a factor of another dtype': fc.tuple(index, fc.constantFrom('I8', 'F64', 'F8_E4M3', 'BOOL', 'C64') as fc.Arbitrary<AdapterTensor['dtype']>).map(([at, dtype]) => withTensor(at, (tensor) => [{ ...tensor, dtype }])),
  'a factor of a module that the target lacks': fc.tuple(index, word).map(([at, name]) => withTensor(at, (tensor) => [{ ...tensor, name: tensor.name.replace('self_attn', `x${name}`) }])),
  'a tensor of no known kind': fc.tuple(word, fc.constantFrom('', 'base_model.', 'base_model.model.', 'base_model.model.model.layers.0.self_attn.q_proj.')).map(([name, prefix]) => ({ ...VALID, tensors: [...VALID.tensors, { name: `${prefix}${name}`, dtype: 'F32', shape: [1] }] })),
  'a module with a path that is none': fc.tuple(index, fc.constantFrom('..', ' ', '/', '\u0000', '\\', '*', '$&')).map(([at, odd]) => withTensor(at, (tensor) => [{ ...tensor, name: tensor.name.replace('self_attn', () => odd) }])),
}

describe('malformed adapters', () => {
  it('the sample that all of them start from is sound', () => {
    expect(outcome(VALID)).toBe('accepted')
  })

  it.each(Object.entries(MUTATIONS))('%s: 100 of them, each refused', (_name, mutation) => {
    for (const sample of fc.sample(mutation, { numRuns: 100, seed: 20261124 })) {
      expect(outcome(sample), JSON.stringify(sample).slice(0, 4000)).not.toBe('accepted')
    }
  })

  it('2,000 configs with changed characters are accepted or refused, and nothing else', () => {
    let refused = 0
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(VALID.config.length - 1), fc.constantFrom(...'{}[]",:0129.eE-+\\ntfalsu _\u0000\ud800')), { minLength: 1, maxLength: 4 }), (changes) => {
      const characters = [...VALID.config]
      for (const [at, character] of changes) characters[at] = character
      if (outcome({ ...VALID, config: characters.join('') }) !== 'accepted') refused += 1
    }), { numRuns: 2000, seed: 20261124 })
    expect(refused).toBeGreaterThan(1000)
  })

  it('any JSON at all is refused, in bounded time', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => {
      expect(outcome({ ...VALID, config: JSON.stringify(value) })).not.toBe('accepted')
    }), { numRuns: 500, seed: 20261124 })
    const start = performance.now()
    const deep = '['.repeat(500_000) + ']'.repeat(500_000)
    expect(outcome({ ...VALID, config: VALID.config.replace('"modules_to_save":null', `"modules_to_save":${deep}`) })).toBe('invalid-json')
    expect(outcome({ ...VALID, config: VALID.config.replace('"layer_replication":null', `"layer_replication":${deep}`) })).toBe('invalid-json')
    outcome({ ...VALID, config: sampleConfig({ rank_pattern: Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`layers.${at}.q`, 4])) }) })
    expect(performance.now() - start).toBeLessThan(2000)
  })

  it('60,000 modules that the target lacks, or that its patterns all fit, take bounded time', () => {
    const factors = (name: (at: number) => string) => Array.from({ length: 30_000 }, (_, at) => sampleFactors(name(at), 8, 8)).flat()
    const start = performance.now()
    expect(outcome({ ...VALID, tensors: factors((at) => `model.layers.${at}.q_proj`) })).not.toBe('accepted')
    expect(outcome({ ...VALID, tensors: factors((at) => `m${at}.layers.9.q_proj`) })).not.toBe('accepted')
    const keys = Object.fromEntries(Array.from({ length: 2000 }, (_, at) => [`${'.'.repeat(at + 1)}`, at + 2]))
    const dense = Array.from({ length: 1900 }, (_, at) => sampleFactors(`${'a'.repeat(at + 1)}.q_proj`, 8, 8)).flat()
    expect(outcome({ tensors: dense, config: sampleConfig({ alpha_pattern: keys }) })).not.toBe('accepted')
    expect(performance.now() - start).toBeLessThan(5000)
  })
})
