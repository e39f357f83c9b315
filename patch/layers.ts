import type { Adapter, AdapterModule } from './adapter.ts'
import type { ManifestTensor, ModelManifest } from './manifest.ts'
import { refusal, warning } from './reason.ts'
import type { Reason } from './resolution.ts'
import { formatLayers, layersByPattern, splitLayer, tensorNames } from './tensor-names.ts'
import { isVocabularyLayer } from './vocabulary-layers.ts'

/**
 * Refuses every module without a tensor in the target, and says so where the target has fewer layers; warns of layers
 * that the target has and neither the adapter nor the base knows: they get nothing.
 */
export function checkLayers(adapter: Adapter, placed: ReadonlyMap<AdapterModule, ManifestTensor>, target: ModelManifest, base: ModelManifest | null): Reason[] {
  const names = tensorNames(target.tensors)
  const targetLayers = layersByPattern(target.tensors.map(({ name }) => name))
  return [...missingModules(adapter, target, names, targetLayers), ...extraLayers(placed, targetLayers, base)]
}

function missingModules(adapter: Adapter, target: ModelManifest, names: ReturnType<typeof tensorNames>, targetLayers: ReadonlyMap<string, ReadonlySet<number>>): Reason[] {
  const reasons: Reason[] = []
  const all = new Set(target.tensors.map(({ name }) => name))
  const withoutFirst = new Map([...targetLayers].map(([pattern, layers]) => [pattern.slice(pattern.indexOf('.') + 1), layers]))
  const beyond = new Map<string, { first: AdapterModule; layers: Set<number>; has: ReadonlySet<number> }>()
  for (const module of adapter.modules) {
    if (names.find(module.module).names.length > 0) continue
    if (target.facts.tieWordEmbeddings && isVocabularyLayer(module)) continue
    const { pattern, layer } = splitLayer(module.module)
    const has = layer === null ? undefined : layersOf(`${pattern}.weight`, targetLayers, withoutFirst)
    if (layer !== null && has !== undefined) {
      const known = beyond.get(pattern) ?? { first: module, layers: new Set(), has }
      known.layers.add(layer)
      beyond.set(pattern, known)
    } else {
      reasons.push(missing(module, all))
    }
  }
  for (const [pattern, { first, layers, has }] of beyond) {
    reasons.push(refusal('fewer-layers', `The target has no ${pattern} for the layers ${formatLayers(layers)}, which the adapter changes; PEFT would drop them without a word.`, {
      tensor: first.a.name, expected: `layers ${formatLayers(layers)}`, found: `layers ${formatLayers(has)}`, remedy: 'Choose a target with as many layers as the base.',
    }))
  }
  return reasons
}

/** The target's layers for a pattern of tensor names, with or without a first segment. */
function layersOf(wanted: string, targetLayers: ReadonlyMap<string, ReadonlySet<number>>, withoutFirst: ReadonlyMap<string, ReadonlySet<number>>): ReadonlySet<number> | undefined {
  return targetLayers.get(wanted) ?? targetLayers.get(wanted.slice(wanted.indexOf('.') + 1)) ?? withoutFirst.get(wanted)
}

function missing({ module, a }: AdapterModule, all: ReadonlySet<string>): Reason {
  if (all.has(`${module}.in_proj_weight`)) {
    return refusal('multihead-attention', `The adapter changes ${module}, which is a torch.nn.MultiheadAttention in the target; this registry cannot merge that yet.`, { tensor: a.name, expected: `${module}.weight`, found: `${module}.in_proj_weight` })
  }
  return refusal('missing-tensor', `The target has no tensor for the module ${module}, which the adapter changes.`, {
    tensor: a.name, expected: `${module}.weight`, found: 'none', remedy: 'Choose a target of the same architecture as the base.',
  })
}

function extraLayers(placed: ReadonlyMap<AdapterModule, ManifestTensor>, targetLayers: ReadonlyMap<string, ReadonlySet<number>>, base: ModelManifest | null): Reason[] {
  const covered = layersByPattern([...placed.values()].map(({ name }) => name))
  const baseLayers = base === null ? null : layersByPattern(base.tensors.map(({ name }) => name))
  const byExtra = new Map<string, string[]>()
  for (const [pattern, layers] of covered) {
    const known = baseLayers?.get(pattern)
    // Without the base, only layers past the adapter's last are surely new: it may leave others out on purpose.
    const last = Math.max(...layers)
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
