import type { LoraConfig } from './adapter-config.ts'
import { largest } from './largest.ts'
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

/** Which parameter each pair of factors belongs to, from the depths of the wrappers of each module that has pairs. */
export function readTargetParameters(config: LoraConfig, depths: ReadonlyMap<string, ReadonlySet<number>>): ParameterModules {
  const targets = config.target_parameters ?? []
  if (targets.length === 0 && [...depths.values()].every((found) => found.size === 1 && found.has(0))) return { parameters: new Map(), reasons: [] }
  const isTargeted = moduleTargeting(config, [...depths.keys()])
  const parameters = new Map<string, readonly string[]>()
  const reasons: Reason[] = []
  const byOwner = Map.groupBy(targets, (target) => target.slice(0, Math.max(0, target.lastIndexOf('.'))))
  const unused = new Set(targets)
  for (const [module, found] of depths) {
    const count = largest(found) + 1
    const named = endsOf(module).flatMap((owner) => byOwner.get(owner) ?? [])
    // `down_proj` alone fits the parameter of that name in any module, so it counts only where the others do not suffice.
    const exact = namesOf(named)
    const names = exact.length === count ? exact : namesOf([...named, ...(byOwner.get('') ?? [])])
    if (count === 1 && (names.length === 0 || (exact.length === 0 && isTargeted(module)))) continue
    if (names.length === count && found.size === count && (count === 1 || names.every((name) => DEFINITION_ORDER.includes(name)))) {
      parameters.set(module, names.sort((a, b) => DEFINITION_ORDER.indexOf(b) - DEFINITION_ORDER.indexOf(a)))
      for (const target of [...named, ...names]) unused.delete(target)
    } else if (count > 1 || exact.length > 0) {
      reasons.push(refusal('target-parameters', `The adapter holds ${found.size} pairs of factors for parameters of ${module}, and which parameters they belong to cannot be told.`, {
        tensor: module, expected: `${count} of ${DEFINITION_ORDER.join(', ')} in target_parameters`, found: names.join(', ').slice(0, 500) || 'none',
        remedy: 'Give each parameter with its module in target_parameters, such as experts.gate_up_proj.',
      }))
    }
  }
  for (const target of unused) {
    const message = `The config targets the parameter ${JSON.stringify(target.slice(0, 200))}, but the adapter holds no factors for it.`
    reasons.push(parameters.size > 0 ? warning('unused-target-module', message) : refusal('target-parameters', message, { remedy: 'Save the adapter with PEFT\'s `save_pretrained`.' }))
  }
  return { parameters, reasons }
}

/** A module's path and every end of it after a dot. */
function endsOf(module: string): string[] {
  const ends = [module]
  for (let dot = module.indexOf('.'); dot >= 0; dot = module.indexOf('.', dot + 1)) ends.push(module.slice(dot + 1))
  return ends
}

function namesOf(targets: readonly string[]): string[] {
  return [...new Set(targets.map((target) => target.slice(target.lastIndexOf('.') + 1)))]
}
