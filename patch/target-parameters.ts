import type { LoraConfig } from './adapter-config.ts'
import { refusal, warning } from './reason.ts'
import type { Reason } from './resolution.ts'
import { moduleTargeting } from './targeting.ts'

/**
 * The bare parameters that a module of transformers may have several of, in the order in which its class defines them:
 * PEFT wraps the first one innermost, and the keys in the file tell only how deep a wrapper lies.
 */
const DEFINITION_ORDER = ['gate_up_proj', 'gate_up_proj_bias', 'up_proj', 'down_proj', 'down_proj_bias']

export interface ParameterModules {
  /** The parameters of each module that `target_parameters` wraps, outermost first. */
  readonly parameters: ReadonlyMap<string, readonly string[]>
  readonly reasons: readonly Reason[]
}

/** Which parameter each pair of factors belongs to; `depths` counts the pairs of each module. */
export function readTargetParameters(config: LoraConfig, depths: ReadonlyMap<string, number>): ParameterModules {
  if (!config.target_parameters?.length && ![...depths.values()].some((count) => count > 1)) return { parameters: new Map(), reasons: [] }
  const isTargeted = moduleTargeting(config)
  const parameters = new Map<string, readonly string[]>()
  const reasons: Reason[] = []
  const targets = (config.target_parameters ?? []).map((target) => ({ owner: target.slice(0, Math.max(0, target.lastIndexOf('.'))), name: target.slice(target.lastIndexOf('.') + 1) }))
  for (const [module, count] of depths) {
    const named = targets.filter(({ owner }) => owner !== '' && (module === owner || module.endsWith(`.${owner}`)))
    // `down_proj` alone fits the parameter of that name in any module, so it counts only where the others do not suffice.
    const exact = unique(named.map(({ name }) => name))
    const wider = unique([...named, ...targets.filter(({ owner }) => owner === '')].map(({ name }) => name))
    const names = exact.length === count ? exact : wider
    if (count === 1 && (names.length === 0 || (exact.length === 0 && isTargeted(module)))) continue
    if (names.length === count && (count === 1 || names.every((name) => DEFINITION_ORDER.includes(name)))) {
      parameters.set(module, names.sort((a, b) => DEFINITION_ORDER.indexOf(b) - DEFINITION_ORDER.indexOf(a)))
    } else if (count > 1 || exact.length > 0) {
      reasons.push(refusal('target-parameters', `The adapter holds ${count} pairs of factors for parameters of ${module}, and which parameters they belong to cannot be told.`, {
        tensor: module, expected: `${count} of ${DEFINITION_ORDER.join(', ')} in target_parameters`, found: names.join(', ') || 'none',
        remedy: 'Give each parameter with its module in target_parameters, such as experts.gate_up_proj.',
      }))
    }
  }
  for (const target of config.target_parameters ?? []) {
    if ([...parameters].some(([module, names]) => names.some((name) => `${module}.${name}` === target || `${module}.${name}`.endsWith(`.${target}`)))) continue
    const message = `The config targets the parameter ${JSON.stringify(target.slice(0, 200))}, but the adapter holds no factors for it.`
    reasons.push(parameters.size > 0 ? warning('unused-target-module', message) : refusal('target-parameters', message, { remedy: 'Save the adapter with PEFT\'s `save_pretrained`.' }))
  }
  return { parameters, reasons }
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)]
}
