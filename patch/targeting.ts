import type { LoraConfig } from './adapter-config.ts'
import { largest } from './largest.ts'
import { MAX_PATTERN_WORK, PatternError, fullMatcher, patternWeight } from './pattern.ts'
import { info, refusal, warning } from './reason.ts'
import type { Reason } from './resolution.ts'

/** PEFT's shorthand for every linear layer but the output head. */
const ALL_LINEAR = 'all-linear'

/**
 * Compares the modules that the adapter's tensors name with those that its config targets (PEFT 0.21,
 * check_target_module_exists). The tensors decide what is merged. A module that the config does not target is refused:
 * PEFT would drop its tensors without a word, so the two would give different models.
 */
export function checkTargeting(config: LoraConfig, modules: readonly string[]): Reason[] {
  if (config.target_modules === null || config.target_modules === ALL_LINEAR) return []
  let isTargeted: (module: string) => boolean
  try {
    isTargeted = targetingRule(config, modules)
  } catch (error) {
    if (!(error instanceof PatternError)) throw error
    return [info('targeting-unchecked', `The config's targeting could not be compared with the tensors, which decide: ${error.message}.`)]
  }
  const reasons = modules.filter((module) => !isTargeted(module)).map((module) =>
    refusal('untargeted-module', `The adapter holds factors for ${module}, which its config does not target.`, {
      tensor: module,
      remedy: 'PEFT would ignore these factors. Correct target_modules, exclude_modules or layers_to_transform, or remove the tensors.',
    }),
  )
  return [...reasons, ...unusedTargets(config, modules)]
}

/** Whether the config's target_modules fits one of the modules; true where that cannot be told. */
export function moduleTargeting(config: LoraConfig, modules: readonly string[]): (module: string) => boolean {
  if (config.target_modules === null) return () => false
  if (config.target_modules === ALL_LINEAR) return () => true
  try {
    return targetingRule(config, modules)
  } catch (error) {
    if (!(error instanceof PatternError)) throw error
    return () => true
  }
}

/** Throws PatternError for an expression that cannot be read, or not be matched in time. */
function targetingRule(config: LoraConfig, modules: readonly string[]): (module: string) => boolean {
  const targets = config.target_modules ?? []
  const isExcluded = config.exclude_modules ? nameRule(config.exclude_modules, modules) : () => false
  if (typeof targets === 'string') {
    const isTarget = nameRule(targets, modules)
    return (module) => !isExcluded(module) && isTarget(module)
  }
  const exact = new Set(targets)
  const isTarget = nameRule(targets, modules)
  const isLayer = layerRule(config)
  // A name that stands in the list in full is targeted whatever layers_to_transform says.
  return (module) => !isExcluded(module) && (exact.has(module) || (isTarget(module) && isLayer(module)))
}

/** A list fits names and the ends of names after a dot; a string is a regular expression for the whole. */
function nameRule(names: string | readonly string[], modules: readonly string[]): (module: string) => boolean {
  if (typeof names === 'string') {
    const characters = modules.reduce((sum, { length }) => sum + length, 0)
    if (patternWeight(names) * characters > MAX_PATTERN_WORK) throw new PatternError(names, `is too large for ${modules.length} modules`)
    return fullMatcher(names)
  }
  const set = new Set(names)
  const depth = depthOf(names)
  return (module) => endsOf(module, depth).some((end) => set.has(end))
}

/** The name, and its ends after a dot, that have at most so many dots. */
function endsOf(module: string, dots: number): string[] {
  const ends: string[] = []
  let dot = module.length
  for (let count = 0; count <= dots && dot >= 0; count += 1) {
    dot = module.lastIndexOf('.', dot - 1)
    ends.push(module.slice(dot + 1))
  }
  return ends
}

/** The most dots of any of the names. */
function depthOf(names: readonly string[]): number {
  return largest(names.map((name) => name.split('.').length - 1))
}

function layerRule(config: LoraConfig): (module: string) => boolean {
  const wanted = config.layers_to_transform
  if (wanted === null || (Array.isArray(wanted) && wanted.length === 0)) return () => true
  const layers = new Set([wanted].flat())
  const patterns = [config.layers_pattern ?? []].flat().filter((pattern) => pattern !== '')
  for (const pattern of patterns) {
    // The layer's number has to be captured, so only plain names are read here; PEFT's documentation gives only those.
    if (!/^[A-Za-z0-9_]+$/.test(pattern)) throw new PatternError(pattern, 'of layers_pattern is not a plain name')
  }
  return (module) => {
    const layer = layerOf(module, patterns)
    return layer !== null && layers.has(layer)
  }
}

/** The number after the first segment that one of the patterns names; without patterns, the first number with segments around it. */
function layerOf(module: string, patterns: readonly string[]): number | null {
  const segments = module.split('.')
  for (const pattern of patterns.length === 0 ? [null] : patterns) {
    for (let at = 1; at < segments.length - 1; at += 1) {
      const isNamed = pattern === null ? at >= 2 : segments[at - 1] === pattern
      if (isNamed && /^\d+$/.test(segments[at] ?? '')) return Number(segments[at])
    }
  }
  return null
}

/** Entries of target_modules that fit no module in the file: PEFT found none, or the tensors have been removed. */
function unusedTargets(config: LoraConfig, modules: readonly string[]): Reason[] {
  if (!Array.isArray(config.target_modules)) return []
  const unused = new Set(config.target_modules)
  const depth = depthOf(config.target_modules)
  for (const module of modules) for (const end of endsOf(module, depth)) unused.delete(end)
  return [...unused].map((target) =>
    warning('unused-target-module', `The config targets ${JSON.stringify(target.slice(0, 200))}, but the adapter holds no factors for it.`),
  )
}
