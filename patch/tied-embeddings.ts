import type { AbsoluteValue, Adapter, AdapterModule, TokenRows } from './adapter.ts'
import { sameDigest, tiedEmbedding } from './absolute-edits.ts'
import type { Laying } from './laying.ts'
import type { ManifestTensor } from './manifest.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { isInputEmbedding, isOutputHead, isVocabularyLayer } from './vocabulary-layers.ts'

/** A part of an adapter that changes rows of the vocabulary. */
export type VocabularyPart = AdapterModule | AbsoluteValue | TokenRows

/** Which ends of a model with tied embeddings a part is meant for. `same`: another part says the same for both. */
export type End = 'input' | 'output' | 'both' | 'same'

/** A tensor that the merged model has and the target does not: the head of a model whose embeddings a merge unties. */
export interface UntiedHead {
  readonly name: string
  /** Name of the target's tensor whose values it begins with: the shared embedding. */
  readonly source: string
}

export interface TiedEmbeddings {
  /** Of each part that changes rows of the vocabulary; empty where the target's embeddings are not tied. */
  readonly ends: ReadonlyMap<VocabularyPart, End>
  /** The tensor that is both ends; null where none or several may be. */
  readonly embedding: ManifestTensor | null
  /** Set where the merge unties them. */
  readonly untied: UntiedHead | null
}

const NOT_TIED: TiedEmbeddings = { ends: new Map(), embedding: null, untied: null }

/** How the adapter's parts lie on tied embeddings; refuses those that change one end alone, unless they may be untied. */
export function readTies(laying: Laying): TiedEmbeddings {
  const { adapter, target, base, options } = laying
  const parts = vocabularyParts(adapter)
  if (parts.length === 0) return NOT_TIED
  const isTied = target.manifest.facts.tieWordEmbeddings
  const wasTied = base === null ? isTied : base.manifest.facts.tieWordEmbeddings
  const ends = readEnds(laying, parts, wasTied)
  if (!isTied) {
    for (const part of parts) {
      if (wasTied && 'indices' in part && ends.get(part) === 'both') laying.refuse(tiesDifferRefusal(part))
    }
    return NOT_TIED
  }
  const single = parts.filter((part) => ends.get(part) === 'input' || ends.get(part) === 'output')
  const embedding = tiedEmbedding(target.manifest.tensors)
  if (embedding === null) {
    laying.refuse(refusal('tied-weights', `The adapter changes ${nameOf(parts[0]!)}, and the target ties its input and output embeddings (tie_word_embeddings) but holds more than one tensor for them, or none that is known.`, {
      tensor: tensorOf(parts[0]!), expected: 'one tensor for both ends', found: 'several or none', remedy: 'Publish a target whose embeddings are not tied.',
    }))
    return { ends, embedding, untied: null }
  }
  if (single.length === 0) return { ends, embedding, untied: null }
  const isDecoder = target.manifest.facts.architectures.some((name) => /(ForCausalLM|LMHeadModel)$/.test(name))
  if (options.tied === 'refuse' || !isDecoder) {
    for (const part of single) laying.refuse(tiedRefusal(part, ends.get(part)!, isDecoder))
    return { ends, embedding, untied: null }
  }
  const head = parts.find((part) => ends.get(part) === 'output' || isOutputHead(nameOf(part)))
  return { ends, embedding, untied: { name: `${head === undefined ? 'lm_head' : nameOf(head)}.weight`, source: embedding.name } }
}

export function vocabularyParts({ modules, values, tokens }: Adapter): VocabularyPart[] {
  return [
    ...modules.filter(({ module, kind }) => kind === 'embedding' || isVocabularyLayer(module)),
    ...values.filter(({ name }) => name.endsWith('.weight') && isVocabularyLayer(withoutEnding(name))),
    ...tokens.filter(({ module }) => isVocabularyLayer(module)),
  ]
}

function readEnds({ adapter }: Laying, parts: readonly VocabularyPart[], wasTied: boolean): Map<VocabularyPart, End> {
  const ends = new Map<VocabularyPart, End>(parts.map((part) => [part, isOutputHead(nameOf(part)) ? 'output' : 'input']))
  if (!wasTied) return ends
  for (const rows of adapter.tokens) if (isInputEmbedding(rows.module) && rows.followsTies) ends.set(rows, 'both')
  // Factors are never paired: with `ensure_weight_tying` PEFT saves them for both ends, but keeps them equal in training
  // only where nothing is cast (measured: on a bfloat16 base they differ after one step), and then one would be lost.
  pairUp(ends, adapter.values)
  return ends
}

/** Notes the one value for the input and the one for the head that are the same, as `ensure_weight_tying` saves them. */
function pairUp(ends: Map<VocabularyPart, End>, values: readonly AbsoluteValue[]): void {
  const [input, ...inputs] = values.filter((value) => ends.get(value) === 'input')
  const [head, ...heads] = values.filter((value) => ends.get(value) === 'output')
  if (input === undefined || head === undefined || inputs.length + heads.length > 0 || !sameDigest(input.tensor.digest, head.tensor.digest)) return
  ends.set(input, 'both')
  ends.set(head, 'same')
}

/** Path of the module whose rows a part changes. */
export function nameOf(part: VocabularyPart): string {
  return 'module' in part ? part.module : withoutEnding(part.name)
}

/** Name of an adapter tensor that belongs to a part. */
export function tensorOf(part: VocabularyPart): string {
  return 'tensor' in part ? part.tensor.name : part.a.name
}

function withoutEnding(name: string): string {
  return name.slice(0, -'.weight'.length)
}

function tiedRefusal(part: VocabularyPart, end: End, canUntie: boolean): Reason {
  return refusal('tied-weights', `The adapter changes ${nameOf(part)}, but the target ties its input and output embeddings (tie_word_embeddings), so that a merge would change both where the adapter means the ${end} alone.`, {
    tensor: tensorOf(part), expected: 'tie_word_embeddings: false', found: 'tie_word_embeddings: true',
    remedy: canUntie ? 'Ask for `untie`, which gives the merged model a head of its own and sets tie_word_embeddings to false, or train without the embedding layers.' : 'Train without the embedding layers, or publish a target whose embeddings are not tied.',
  })
}

function tiesDifferRefusal(part: VocabularyPart): Reason {
  return refusal('tied-weights', `The adapter trains rows of ${nameOf(part)} for both ends of its base, whose embeddings are tied; those of the target are not.`, {
    tensor: tensorOf(part), expected: 'tie_word_embeddings: true', found: 'tie_word_embeddings: false', remedy: 'Choose a target with tied embeddings, or train on one without.',
  })
}
