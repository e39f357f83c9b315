import type { LoraConfig } from './adapter-config.ts'
import { isLiteral, MAX_PATTERN_WORK, PatternError, patternWeight, suffixMatcher } from './pattern.ts'
import type { NameMatcher } from './pattern.ts'
import { refusal, warning } from './reason.ts'
import type { Reason } from './resolution.ts'

/** Most characters of keys that are compared with a name each: a thousand keys for as many modules are a quarter of it. */
const MAX_COMPARED = 200_000_000
/** Most keys of a pattern: one for each module of the largest models. */
const MAX_KEYS = 20_000
/** Most keys with operators: each costs microseconds for each module. */
const MAX_EXPRESSIONS = 64

/** Overlaps, and keys without use, that are told of; a hostile config could have millions. */
const MAX_OVERLAPS = 100
const MAX_UNUSED = 100

type PatternKey = 'rank_pattern' | 'alpha_pattern'

export interface ModulePatterns {
  readonly of: (module: string) => { readonly rank: number; readonly alpha: number }
  /** Keys that cannot be read, that overlap, or that fit no module. */
  readonly reasons: readonly Reason[]
}

/**
 * The rank and alpha of each module: the value of the first key, in the order of the file, that fits it as PEFT's
 * get_pattern_key has it; rank and alpha independently of each other.
 */
export function readPatterns(config: LoraConfig, modules: readonly string[]): ModulePatterns {
  const ranks = resolvePattern('rank_pattern', config.rank_pattern ?? {}, modules)
  const alphas = resolvePattern('alpha_pattern', config.alpha_pattern ?? {}, modules)
  return {
    of: (module) => ({ rank: ranks.values.get(module) ?? config.r, alpha: alphas.values.get(module) ?? config.lora_alpha }),
    reasons: [...ranks.reasons, ...alphas.reasons],
  }
}

function resolvePattern(name: PatternKey, pattern: Readonly<Record<string, number>>, modules: readonly string[]) {
  const values = new Map<string, number>()
  const reasons: Reason[] = []
  const entries = Object.entries(pattern)
  const matchers = compileKeys(name, entries, modules, reasons)
  if (reasons.length > 0) return { values, reasons }
  const used = new Set<string>()
  const overlaps = new Set<string>()
  for (const module of modules) {
    let winner: string | null = null
    entries.forEach(([key, value], index) => {
      if (!matchers[index]?.(module)) return
      used.add(key)
      if (winner === null) {
        winner = key
        values.set(module, value)
      } else if (pattern[winner] !== value && overlaps.size < MAX_OVERLAPS && !overlaps.has(`${winner}\n${key}`)) {
        overlaps.add(`${winner}\n${key}`)
        reasons.push(overlapWarning(name, winner, key, module))
      }
    })
  }
  const unused = entries.filter(([key]) => !used.has(key))
  for (const [key] of unused.slice(0, MAX_UNUSED)) {
    reasons.push(warning('unused-pattern', `The key ${quote(key)} of \`${name}\` fits no module of the adapter.`, { remedy: 'Check its spelling: modules that it should fit have the default.' }))
  }
  if (unused.length > MAX_UNUSED) reasons.push(warning('unused-pattern', `${unused.length - MAX_UNUSED} more keys of \`${name}\` fit no module of the adapter.`))
  return { values, reasons }
}

function compileKeys(name: PatternKey, entries: readonly [string, number][], modules: readonly string[], reasons: Reason[]): NameMatcher[] {
  if (entries.length > MAX_KEYS) {
    reasons.push(refusal('unsupported-pattern', `\`${name}\` has ${entries.length} keys.`, { expected: `at most ${MAX_KEYS}`, remedy: 'Give keys only for modules that the adapter has.' }))
    return []
  }
  const expressions = entries.filter(([key]) => !isLiteral(key))
  const compared = entries.reduce((sum, [key]) => sum + key.length, 0) * modules.length
  const work = expressions.reduce((sum, [key]) => sum + patternWeight(key), 0) * modules.reduce((sum, module) => sum + module.length, 0)
  if (compared > MAX_COMPARED || work > MAX_PATTERN_WORK || expressions.length > MAX_EXPRESSIONS) {
    reasons.push(refusal('unsupported-pattern', `\`${name}\` has ${entries.length} keys, ${expressions.length} of them with operators, for ${modules.length} modules.`, { expected: `at most ${MAX_EXPRESSIONS} keys with operators`, remedy: 'Give full module names as keys, without operators.' }))
    return []
  }
  return entries.map(([key]) => {
    try {
      // JavaScript puts integer-like keys first, whatever the file says, and PEFT goes by the file's order.
      if (/^\d+$/.test(key)) throw new PatternError(key, 'consists of digits only')
      return suffixMatcher(key)
    } catch (error) {
      if (!(error instanceof PatternError)) throw error
      reasons.push(refusal('unsupported-pattern', `In \`${name}\`, ${error.message}.`, { found: key.slice(0, 200), remedy: 'Give full module names as keys, without operators.' }))
      return () => false
    }
  })
}

function overlapWarning(name: PatternKey, winner: string, loser: string, module: string): Reason {
  return warning('overlapping-patterns', `The keys ${quote(winner)} and ${quote(loser)} of \`${name}\` both fit ${module}; the first one in the file counts. PEFT sorts the keys when it saves, so training may have used the other.`, {
    remedy: 'Publish the adapter with keys that do not overlap.',
  })
}

function quote(key: string): string {
  return JSON.stringify(key.slice(0, 200))
}
