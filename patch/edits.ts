import { layTokens, layValue, TITLES, unchangedValue } from './absolute-edits.ts'
import type { Adapter, AdapterModule, AdapterTensor } from './adapter.ts'
import { openCheckpoint } from './checkpoint.ts'
import type { Edit } from './edit.ts'
import { findExpertParts, findInStack } from './expert-tensors.ts'
import type { ExpertPart } from './expert-tensors.ts'
import { explainMissing, warnOfExtraLayers } from './layers.ts'
import type { MissingPart } from './layers.ts'
import { DEFAULT_OPTIONS } from './laying.ts'
import type { Landing, LayOptions, Laying } from './laying.ts'
import { layModule, layParameter } from './low-rank-edits.ts'
import type { ManifestTensor, ModelManifest } from './manifest.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { readTies } from './tied-embeddings.ts'
import type { TiedEmbeddings, UntiedHead, VocabularyPart } from './tied-embeddings.ts'

export interface AdapterEdits {
  /** In the order of the target's tensor names, and of the rows in each. */
  readonly edits: readonly Edit[]
  /** The head that the merged model gets where its embeddings have to be untied, or null. */
  readonly untied: UntiedHead | null
  /** Adapter tensors that have no effect of their own: copies of the base's own values, or of each other. */
  readonly idle: readonly string[]
  /** The adapter's own reasons, then those of laying it on the target. */
  readonly reasons: readonly Reason[]
}

/**
 * Lays an adapter on a target. Every part must land on exactly one place of the right shape; what does not is refused
 * by name, where PEFT would be silent. The base's manifest tells what training changed of full values and of weights
 * that it changed at the start, and which layers the base has too.
 */
export function adapterEdits(adapter: Adapter, target: ModelManifest, base: ModelManifest | null = null, options: Partial<LayOptions> = {}): AdapterEdits {
  const reasons: Reason[] = [...adapter.reasons]
  if (adapter.config === null) return { edits: [], untied: null, idle: [], reasons }
  if (target.facts.quantization !== null) {
    reasons.push(refusal('quantized-target', `The target is quantized (${target.facts.quantization}), and a patch cannot be added to quantized weights.`, {
      expected: 'weights without quantization', found: target.facts.quantization, remedy: 'Publish and name the version of the model that is not quantized.',
    }))
  }
  const laying: Laying = {
    adapter, config: adapter.config, target: openCheckpoint(target), base: base && openCheckpoint(base), options: { ...DEFAULT_OPTIONS, ...options }, reasons,
    refuse: (reason) => {
      reasons.push(reason)
      return null
    },
  }
  const idle = adapter.repeated.map(({ name }) => name)
  const values = adapter.values.filter((value) => {
    const reason = unchangedValue(laying, value)
    if (reason === null) return true
    reasons.push(reason)
    idle.push(value.tensor.name)
    return false
  })
  const parts = { ...adapter, values }
  const ties = readTies({ ...laying, adapter: parts })
  const edits = layParts({ ...laying, adapter: parts }, ties)
  const all = [...reasons, ...warnOfExtraLayers(laying, edits.map(({ target: name }) => name)), ...overlaps(edits)]
  return { edits: edits.sort(inOrder), untied: ties.untied, idle, reasons: all }
}

function inOrder(a: Edit, b: Edit): number {
  return a.target === b.target ? a.rows.first - b.rows.first : a.target < b.target ? -1 : 1
}

function layParts(laying: Laying, ties: TiedEmbeddings): Edit[] {
  const { adapter: { modules, values, tokens } } = laying
  const landings = new LandingFinder(laying, ties)
  const ofModules = modules.flatMap((module): Edit[] => {
    if (module.kind === 'parameter') {
      const name = `${module.module}.${module.parameter}`
      const parts = landings.findParameter(name, module)
      return parts === null ? [] : layParameter(laying, module, name, parts)
    }
    const landing = landings.find(module, namesOf(module), module.a)
    return landing === null ? [] : layModule(laying, module, landing)
  })
  const ofValues = values.flatMap((value): Edit[] => {
    const landing = ties.ends.get(value) === 'same' ? null : landings.find(value, [value.name], value.tensor, TITLES[value.feature])
    const edit = landing && layValue(laying, value, landing)
    return edit === null ? [] : [edit]
  })
  const ofTokens = tokens.flatMap((rows): Edit[] => {
    const landing = landings.find(rows, [`${rows.module}.weight`], rows.tensor, TITLES['trainable-tokens'])
    return landing === null ? [] : layTokens(laying, rows, landing)
  })
  for (const reason of explainMissing(laying, landings.missing)) laying.reasons.push(reason)
  return withSame([...ofModules, ...ofValues, ...ofTokens], laying, ties)
}

/** The tensors that a module may be: its weight, or those of a torch.nn.MultiheadAttention. */
function namesOf({ module, kind }: AdapterModule): string[] {
  return kind === 'linear' ? [`${module}.weight`, `${module}.in_proj_weight`] : [`${module}.weight`]
}

/** The head's value that is the embedding's is consumed with it. */
function withSame(edits: readonly Edit[], { adapter: { values } }: Laying, { ends }: TiedEmbeddings): Edit[] {
  const [shared, same] = (['both', 'same'] as const).map((end) => values.find((value) => ends.get(value) === end)?.tensor.name)
  if (shared === undefined || same === undefined) return [...edits]
  return edits.map((edit) => (edit.consumes.includes(shared) ? { ...edit, consumes: [...edit.consumes, same] } : edit))
}

/** Finds where parts land, each name once, and refuses what may mean more than one tensor. */
class LandingFinder {
  readonly #laying: Laying
  readonly #ties: TiedEmbeddings
  readonly missing: MissingPart[] = []
  #change: { readonly by: string; readonly name: string } | null = null

  constructor(laying: Laying, ties: TiedEmbeddings) {
    this.#laying = laying
    this.#ties = ties
  }

  /** Null where there is none, which `missing` then notes, and where it was refused. */
  find(part: VocabularyPart, names: readonly string[], factor: AdapterTensor, title?: string): Landing | null {
    const end = this.#ties.ends.get(part)
    if (end !== undefined) return this.#findTied(end)
    for (const name of names) {
      const tensor = this.#findPlain(name, factor)
      if (tensor === 'refused') return null
      if (tensor !== null) return { name: tensor.name, tensor, rows: null, isShared: false }
    }
    const stacked = 'kind' in part && part.kind === 'linear' ? findInStack(this.#laying.target, part.module) : null
    if (stacked !== null) return { name: stacked.tensor.name, ...stacked, isShared: false }
    this.missing.push({ name: names[0]!, factor: factor.name, experts: null, ...(title === undefined ? {} : { title }) })
    return null
  }

  /** The tensors of a bare parameter; null as above. */
  findParameter(name: string, { a, rank }: AdapterModule): ExpertPart[] | null {
    if (this.#findPlain(name, a) === 'refused') return null
    const experts = a.shape[0]! / rank
    const parts = findExpertParts(this.#laying.target, name, experts)
    if (parts === null) {
      this.#laying.refuse(refusal('missing-tensor', `The target has the parameter ${name}, which the adapter changes, for another number of experts.`, { tensor: a.name, expected: `${experts} experts`, found: 'fewer or more', remedy: 'Choose a target of the same architecture and size as the base.' }))
      return null
    }
    if (parts.length > 0) return parts
    this.missing.push({ name, factor: a.name, experts })
    return null
  }

  #findTied(end: 'input' | 'output' | 'both' | 'same'): Landing | null {
    const { embedding, untied } = this.#ties
    if (embedding === null || (end !== 'both' && untied === null)) return null
    return { name: end === 'output' ? untied!.name : embedding.name, tensor: embedding, rows: null, isShared: end === 'both' }
  }

  #findPlain(name: string, { name: factor }: AdapterTensor): ManifestTensor | null | 'refused' {
    const { target } = this.#laying
    const match = target.match(name)
    if (match.names.length > 1) {
      this.#laying.refuse(ambiguous(name, factor, match.names.slice(0, 3).join(' or ')))
      return 'refused'
    }
    const tensor = target.find(name)
    if (tensor === null || match.change === '') return tensor
    if (this.#change !== null && this.#change.by !== match.change) {
      this.#laying.refuse(ambiguous(name, factor, `${tensor.name}, although ${this.#change.name} means its tensor by another prefix`))
      return 'refused'
    }
    this.#change ??= { by: match.change, name }
    return tensor
  }
}

function ambiguous(name: string, factor: string, found: string): Reason {
  return refusal('ambiguous-tensor', `${name} may mean more than one tensor of the target.`, {
    tensor: factor, expected: `exactly one tensor for ${name}`, found, remedy: 'Train the adapter on the model class that wrote the checkpoint.',
  })
}

/** Parts of one kind that change the same rows: PEFT would let one of them win. */
function overlaps(edits: readonly Edit[]): Reason[] {
  const reasons: Reason[] = []
  const byTarget = Map.groupBy(edits, ({ target }) => target)
  for (const [target, all] of byTarget) {
    for (const kind of ['product', 'value'] as const) {
      const sorted = all.filter((edit) => kindOf(edit) === kind).sort(inOrder)
      for (const [index, edit] of sorted.entries()) {
        const next = sorted[index + 1]
        if (next === undefined || endOf(edit) <= next.rows.first * next.cols) continue
        reasons.push(refusal('tensor-edited-twice', `The adapter's ${edit.consumes[0]} and ${next.consumes[0]} both mean the target's ${target}.`, { tensor: target }))
        break
      }
    }
  }
  return reasons
}

/** Products add up with full values, which copies of embeddings and biases come with; a bias of B is a sum of its own. */
function kindOf(edit: Edit): 'product' | 'value' | 'sum' {
  if (edit.kind === 'additive' || edit.kind === 'dora') return 'product'
  return edit.kind === 'dense' && edit.base === null ? 'sum' : 'value'
}

function endOf({ rows, cols }: Edit): number {
  return (rows.first + rows.count) * cols
}
