import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AdapterError, readAdapter } from './adapter.ts'
import { adapterEdits } from './edits.ts'
import { MALFORMED_ADAPTERS, VALID_ADAPTER, type AdapterSample } from './malformed-adapters.ts'
import { sampleConfig, sampleFactors, sampleModel } from './sample-manifests.ts'

const TARGET = sampleModel({ layers: 3 })

/** `accepted`, or the code of the error or of the first refusal; anything else that is thrown fails the test. */
function outcome({ config, tensors }: AdapterSample): string {
  try {
    const { reasons } = adapterEdits(readAdapter(config, tensors), TARGET)
    return reasons.find(({ severity }) => severity === 'refusal')?.code ?? 'accepted'
  } catch (error) {
    if (error instanceof AdapterError) return error.code
    throw error
  }
}

describe('malformed adapters', () => {
  it('the sample that all of them start from is sound', () => {
    expect(outcome(VALID_ADAPTER)).toBe('accepted')
  })

  it.each(Object.entries(MALFORMED_ADAPTERS))('%s: 100 of them, each refused', (_name, mutation) => {
    for (const sample of fc.sample(mutation, { numRuns: 100, seed: 20261124 })) {
      expect(outcome(sample), JSON.stringify(sample).slice(0, 4000)).not.toBe('accepted')
    }
  })

  it('2,000 configs with changed characters are accepted or refused, and nothing else', () => {
    let refused = 0
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(VALID_ADAPTER.config.length - 1), fc.constantFrom(...'{}[]",:0129.eE-+\\ntfalsu _\u0000\ud800')), { minLength: 1, maxLength: 4 }), (changes) => {
      const characters = [...VALID_ADAPTER.config]
      for (const [at, character] of changes) characters[at] = character
      if (outcome({ ...VALID_ADAPTER, config: characters.join('') }) !== 'accepted') refused += 1
    }), { numRuns: 2000, seed: 20261124 })
    expect(refused).toBeGreaterThan(1000)
  })

  it('any JSON at all is refused, in bounded time', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => {
      expect(outcome({ ...VALID_ADAPTER, config: JSON.stringify(value) })).not.toBe('accepted')
    }), { numRuns: 500, seed: 20261124 })
    const start = process.threadCpuUsage()
    const deep = '['.repeat(500_000) + ']'.repeat(500_000)
    expect(outcome({ ...VALID_ADAPTER, config: VALID_ADAPTER.config.replace('"modules_to_save":null', `"modules_to_save":${deep}`) })).toBe('invalid-json')
    expect(outcome({ ...VALID_ADAPTER, config: VALID_ADAPTER.config.replace('"layer_replication":null', `"layer_replication":${deep}`) })).toBe('invalid-json')
    outcome({ ...VALID_ADAPTER, config: sampleConfig({ rank_pattern: Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`layers.${at}.q`, 4])) }) })
    expect(process.threadCpuUsage(start).user / 1000).toBeLessThan(2000)
  })

  const factors = (modules: number, name: (at: number) => string) => Array.from({ length: modules }, (_, at) => sampleFactors(name(at), 8, 8)).flat()

  it('30,000 modules that the target lacks take bounded time', () => {
    const start = process.threadCpuUsage()
    expect(outcome({ ...VALID_ADAPTER, tensors: factors(30_000, (at) => `model.layers.${at}.q_proj`) })).not.toBe('accepted')
    expect(outcome({ ...VALID_ADAPTER, tensors: factors(30_000, (at) => `m${at}.layers.9.q_proj`) })).not.toBe('accepted')
    expect(process.threadCpuUsage(start).user / 1000).toBeLessThan(5000)
  })

  // Each is nearly as much as is read, and made to be compared to the end; ten times as much took minutes.
  const worst = (times: number) => ({
    'keys of dots': { reads: 'overlapping-patterns', refuses: 'unsupported-pattern', tensors: factors(2000 * times, (at) => `${'a.'.repeat(200)}m${at}`), config: { target_modules: null, alpha_pattern: Object.fromEntries(Array.from({ length: 400 }, (_, at) => ['.'.repeat(at + 1), at + 2])) } },
    'keys that are expressions': { reads: 'overlapping-patterns', refuses: 'unsupported-pattern', tensors: factors(15 * times, (at) => `${'a'.repeat(60)}${at}`), config: { target_modules: null, alpha_pattern: Object.fromEntries(Array.from({ length: 64 }, (_, at) => [`(${'a?.?'.repeat(10)}){9}.*|${'b'.repeat(at)}`, at + 2])) } },
    'an expression for targets': { reads: 'missing-tensor', refuses: 'targeting-unchecked', tensors: factors(500 * times, (at) => `${'a'.repeat(100)}${at}`), config: { target_modules: `(${'a?.?'.repeat(230)})+` } },
  })

  it.each(Object.entries(worst(1)))('%s that all modules fit take bounded time', (_, { tensors, config, reads, refuses }) => {
    const start = process.threadCpuUsage()
    const codes = adapterEdits(readAdapter(sampleConfig(config), tensors), TARGET).reasons.map(({ code }) => code)
    expect(process.threadCpuUsage(start).user / 1000).toBeLessThan(5000)
    expect(codes).toContain(reads)
    expect(codes).not.toContain(refuses)
  })

  it.each(Object.entries(worst(3)))('%s for three times as many are not compared', (_, { tensors, config, refuses }) => {
    expect(readAdapter(sampleConfig(config), tensors).reasons).toContainEqual(expect.objectContaining({ code: refuses }))
  })
})
