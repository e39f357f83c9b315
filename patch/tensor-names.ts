import { diskNames } from './disk-names.ts'

/**
 * The tensors of a checkpoint, looked up by the names that PEFT saw. A checkpoint may lack the first segment of a
 * name (GPT-2 on disk has `h.0…` for `transformer.h.0…`) or have one more (an adapter trained on the model without its
 * head), as transformers' `base_model_prefix` allows; and its model type may store some under other names.
 */
export interface TensorNames {
  readonly find: (name: string) => TensorMatch
}

export interface TensorMatch {
  /** Every tensor that the name may mean; sound where there is exactly one. */
  readonly names: readonly string[]
  /** How the name was changed to find it: `` for not at all, `-x` and `+x` for the segment left out or added. */
  readonly change: string
}

const NONE: TensorMatch = { names: [], change: '' }

export function tensorNames(tensors: readonly { readonly name: string }[], modelType: string | null): TensorNames {
  const all = new Set<string>()
  const firstSegments = new Set<string>()
  const withoutFirst = new Map<string, string[]>()
  for (const { name } of tensors) {
    all.add(name)
    const dot = name.indexOf('.')
    firstSegments.add(name.slice(0, dot < 0 ? name.length : dot))
    if (dot < 0) continue
    const rest = name.slice(dot + 1)
    const same = withoutFirst.get(rest)
    if (same === undefined) withoutFirst.set(rest, [name])
    else same.push(name)
  }
  function findAs(wanted: string): TensorMatch {
    if (all.has(wanted)) return { names: [wanted], change: '' }
    const dot = wanted.indexOf('.')
    const first = wanted.slice(0, dot < 0 ? wanted.length : dot)
    // Where the checkpoint knows the first segment, a missing tensor is missing, not named otherwise.
    if (firstSegments.has(first)) return NONE
    const longer = withoutFirst.get(wanted) ?? []
    const shorter = dot < 0 ? null : wanted.slice(dot + 1)
    // `lm_head.weight` is no bare `weight`.
    const names = shorter !== null && shorter.includes('.') && all.has(shorter) ? [...longer, shorter] : longer
    const [name] = names
    if (name === undefined || names.length > 1) return { names, change: '' }
    return { names, change: name === shorter ? `-${first}` : `+${name.slice(0, name.indexOf('.'))}` }
  }
  return {
    find(name) {
      for (const wanted of [name, ...diskNames(modelType, name)]) {
        const match = findAs(wanted)
        if (match.names.length > 0) return match
      }
      return NONE
    },
  }
}

/** A tensor's or module's name with its first number replaced by `*`, and that number: the layer. */
export function splitLayer(name: string): { readonly pattern: string; readonly layer: number | null } {
  const segments = name.split('.')
  const at = segments.findIndex((segment) => /^\d{1,9}$/.test(segment))
  if (at < 0) return { pattern: name, layer: null }
  const layer = Number(segments[at])
  segments[at] = '*'
  return { pattern: segments.join('.'), layer }
}

/** The layers that there are of each pattern. */
export function layersByPattern(names: Iterable<string>): Map<string, Set<number>> {
  const layers = new Map<string, Set<number>>()
  for (const name of names) {
    const { pattern, layer } = splitLayer(name)
    if (layer === null) continue
    const known = layers.get(pattern)
    if (known === undefined) layers.set(pattern, new Set([layer]))
    else known.add(layer)
  }
  return layers
}

/** `0-3, 7` for the layers 0, 1, 2, 3 and 7. */
export function formatLayers(layers: Iterable<number>): string {
  const sorted = [...layers].sort((a, b) => a - b)
  const runs: [number, number][] = []
  for (const layer of sorted) {
    const last = runs.at(-1)
    if (last !== undefined && layer <= last[1] + 1) last[1] = layer
    else runs.push([layer, layer])
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ')
}
