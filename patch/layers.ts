import { findExpertParts } from './expert-tensors.ts'
import { largest } from './largest.ts'
import type { Laying } from './laying.ts'
import { refusal, warning } from './reason.ts'
import type { Reason } from './resolution.ts'
import { formatLayers, layersByPattern, splitLayer } from './tensor-names.ts'

/** A model has a hundred layers and as many kinds of tensors; beyond that no layers are told. */
const MAX_LOOKUPS = 1_000_000

/** A part of the adapter for which the target has no tensor. */
export interface MissingPart {
  /** The tensor's name in the model that PEFT saw. */
  readonly name: string
  /** Name of a tensor of the adapter that belongs to it. */
  readonly factor: string
  /** How many experts a bare parameter has; null for what is no parameter. */
  readonly experts: number | null
  /** What kind of part it is, where that is not plain. */
  readonly title?: string
}

/** Refuses every part without a tensor in the target, and says so where the target has fewer layers. */
export function explainMissing({ target }: Laying, missing: readonly MissingPart[]): Reason[] {
  const layers = new Set([...layersByPattern(target.manifest.tensors.map(({ name }) => name)).values()].flatMap((found) => [...found]))
  const patterns = Map.groupBy(missing, ({ name }) => splitLayer(name).pattern)
  const isTooMuch = patterns.size * layers.size > MAX_LOOKUPS
  return [...patterns].flatMap(([pattern, parts]): Reason[] => {
    const [first] = parts as [MissingPart]
    const inLayer = (layer: number): MissingPart => ({ ...first, name: pattern.replace('*', `${layer}`) })
    const has = splitLayer(first.name).layer === null || isTooMuch ? [] : [...layers].filter((layer) => exists(target, inLayer(layer)))
    if (has.length === 0) return parts.map((part) => missingTensor(part, target.modelType))
    const wanted = parts.map(({ name }) => splitLayer(name).layer ?? 0)
    return [refusal('fewer-layers', `The target has no ${pattern} for the layers ${formatLayers(wanted)}, which the adapter changes; PEFT would drop them without a word.`, {
      tensor: first.factor, expected: `layers ${formatLayers(wanted)}`, found: `layers ${formatLayers(has)}`, remedy: 'Choose a target with as many layers as the base.',
    })]
  })
}

function exists(target: Laying['target'], { name, experts }: MissingPart): boolean {
  return experts === null ? target.match(name).names.length > 0 : findExpertParts(target, name, experts)?.length !== 0
}

function missingTensor({ name, factor, experts, title }: MissingPart, modelType: string | null): Reason {
  return refusal('missing-tensor', `The target has no tensor for ${name}, which the adapter ${title === undefined ? 'changes' : `holds as ${title}`}${experts !== null && experts > 1 ? ` for ${experts} experts` : ''}.`, {
    tensor: factor, expected: name, found: 'none',
    remedy: title !== undefined ? 'Publish the model with this module as a version of its own and train on that; a patch adds no modules.'
      : experts !== null && modelType === null ? 'Publish the target with its config.json, which tells how it stores its experts.'
      : 'Choose a target of the same architecture as the base.',
  })
}

/** Warns of layers that the target has and neither the adapter nor the base knows: they get nothing. */
export function warnOfExtraLayers({ target, base }: Laying, edited: Iterable<string>): Reason[] {
  const targetLayers = layersByPattern(target.manifest.tensors.map(({ name }) => name))
  const baseLayers = base && layersByPattern(base.manifest.tensors.map(({ name }) => name))
  const covered = layersByPattern(edited)
  const byExtra = new Map<string, string[]>()
  for (const [pattern, layers] of covered) {
    const known = baseLayers?.get(pattern)
    // Without the base, only layers past the adapter's last are surely new: it may leave others out on purpose.
    const last = largest(layers)
    const extra = [...(targetLayers.get(pattern) ?? [])].filter((layer) => !layers.has(layer) && (known === undefined ? layer > last : !known.has(layer)))
    if (extra.length === 0) continue
    const key = formatLayers(extra)
    byExtra.set(key, [...(byExtra.get(key) ?? []), pattern])
  }
  return [...byExtra].map(([extra, patterns]) =>
    warning('more-layers', `The target has the layers ${extra}, which the adapter does not know; they stay as they are.`, {
      tensor: patterns[0] ?? '', expected: `layers ${formatLayers(covered.get(patterns[0] ?? '') ?? [])}`, found: `layers ${formatLayers(targetLayers.get(patterns[0] ?? '') ?? [])}`,
      remedy: 'Measure the merged model before relying on it.',
    }),
  )
}
