import type { AbsoluteValue, AdapterTensor, TokenRows } from './adapter.ts'
import { isTargetDtype, TARGET_DTYPES } from './dtype.ts'
import type { DenseEdit, ReplaceEdit, RowRange } from './edit.ts'
import type { Landing, Laying } from './laying.ts'
import { sameShape } from './low-rank-edits.ts'
import type { ManifestTensor } from './manifest.ts'
import { describeShape, info, refusal } from './reason.ts'
import type { Reason, ReasonCode } from './resolution.ts'
import { unusableTarget } from './target-dtype.ts'
import { isVocabularyLayer } from './vocabulary-layers.ts'

/** Each run is read, signed and merged by itself. */
const MAX_TOKEN_RUNS = 4096

/** What a full value is, in words. */
export const TITLES: Readonly<Record<AbsoluteValue['feature'] | 'trainable-tokens', string>> = {
  'modules-to-save': 'a fully trained module (`modules_to_save`)',
  'trained-bias': 'a trained bias (`bias`)',
  'embedding-copy': 'a copy of an embedding',
  'trainable-tokens': 'trained rows of an embedding (`trainable_token_indices`)',
}

/**
 * A full value on the tensor where it lands: as what training changed of the exact base, so that nothing is lost that
 * the target has learned since; as itself where the target has learned nothing there, or where that was asked for.
 */
export function layValue(laying: Laying, { tensor: value, name, feature }: AbsoluteValue, landing: Landing): DenseEdit | ReplaceEdit | null {
  const { tensor } = landing
  if (!sameShape(value.shape, tensor.shape) || value.shape.includes(0)) return laying.refuse(sizeRefusal(laying, value, name, tensor))
  const [rows, cols] = asMatrix(tensor.shape)
  return layRun(laying, { value, feature, name, landing, rows: { first: 0, count: rows }, cols, from: 0 })
}

/** Trained rows on the embedding where they land: an edit for each run of neighbouring tokens. */
export function layTokens(laying: Laying, { module, tensor: value, indices }: TokenRows, landing: Landing): (DenseEdit | ReplaceEdit)[] {
  const [count, cols] = asMatrix(landing.tensor.shape)
  const largest = indices.reduce((max, index) => Math.max(max, index), 0)
  if (landing.tensor.shape.length !== 2 || value.shape[1] !== cols || largest >= count) {
    laying.refuse(refusal('vocabulary-size', `The adapter trains rows of ${module} that the target's ${landing.tensor.name} does not have.`, {
      tensor: value.name, expected: `token ${largest} of ${value.shape[1]} values`, found: describeShape(landing.tensor.shape), remedy: 'Choose a target with the vocabulary of the base.',
    }))
    return []
  }
  const runs = runsOf(indices)
  if (runs.length > MAX_TOKEN_RUNS) {
    laying.refuse(refusal('trainable-tokens', `The adapter trains ${indices.length} rows of ${module} in ${runs.length} separate runs.`, { tensor: value.name, expected: `at most ${MAX_TOKEN_RUNS} runs of neighbouring tokens`, found: `${runs.length}`, remedy: 'Train the embedding whole (`modules_to_save`).' }))
    return []
  }
  const edits: (DenseEdit | ReplaceEdit)[] = []
  for (const { first, from, length } of runs) {
    const edit = layRun(laying, { value, feature: 'trainable-tokens', name: `${module}.weight`, landing, rows: { first, count: length }, cols, from: from * cols })
    // What is refused for one run is refused for all.
    if (edit === null) return []
    edits.push(edit)
  }
  return edits
}

/** Runs of tokens whose values lie one after the other in the adapter as in the embedding, in the order of the tokens. */
function runsOf(indices: readonly number[]): { first: number; from: number; length: number }[] {
  const runs: { first: number; from: number; length: number }[] = []
  for (const [from, first] of indices.entries()) {
    const last = runs.at(-1)
    if (last !== undefined && first === last.first + last.length) last.length += 1
    else runs.push({ first, from, length: 1 })
  }
  return runs.sort((a, b) => a.first - b.first)
}

interface Run {
  readonly value: AdapterTensor
  readonly feature: keyof typeof TITLES
  /** The tensor's name in the model that PEFT saw. */
  readonly name: string
  readonly landing: Landing
  readonly rows: RowRange
  readonly cols: number
  /** Of the value, in elements. */
  readonly from: number
}

function layRun(laying: Laying, { value, feature, name, landing, rows, cols, from }: Run): DenseEdit | ReplaceEdit | null {
  const { tensor } = landing
  const unusable = unusableTarget(laying.target, tensor)
  if (unusable !== null) return laying.refuse(unusable)
  if (!isTargetDtype(value.dtype)) return laying.refuse(refusal('factor-dtype', `The adapter's ${value.name} is stored as ${value.dtype}.`, { tensor: value.name, expected: TARGET_DTYPES.join(', '), found: value.dtype, remedy: 'Save the adapter in float32, float16 or bfloat16.' }))
  const original = findOriginal(laying, name)
  const common = { target: landing.name, rows, cols, isShared: landing.isShared, consumes: [value.name], value: { tensor: value.name, offset: from } }
  const isComparable = original !== null && isTargetDtype(original.dtype) && sameShape(original.shape, tensor.shape)
  const base = isComparable ? { tensor: original.name, offset: rows.first * cols } : null
  // Where the target's tensor is the base's own, W + (value − base) is the value.
  if (base !== null && sameDigest(original?.digest, tensor.digest)) return { ...common, kind: 'replace', base }
  if (laying.options.absolute === 'replace') return { ...common, kind: 'replace', base: null }
  if (base !== null) return { ...common, kind: 'dense', scale: 1, base }
  return laying.refuse(absoluteRefusal(laying, feature, name, value, original))
}

/** The tensor of the base that the value was trained from; the embedding where the base's head is tied to it. */
export function findOriginal({ base }: Laying, name: string): ManifestTensor | null {
  if (base === null) return null
  return base.find(name) ?? (base.manifest.facts.tieWordEmbeddings && isVocabularyLayer(name.replace(/\.weight$/, '')) ? tiedEmbedding(base.manifest.tensors) : null)
}

/** The one tensor that a model with tied embeddings has for both ends, or null where that is not plain. */
export function tiedEmbedding(tensors: readonly ManifestTensor[]): ManifestTensor | null {
  const found = tensors.filter(({ name }) => name.endsWith('.weight') && isVocabularyLayer(name.slice(0, -'.weight'.length)))
  return found.length === 1 ? found[0]! : null
}

/** The info for a value that is the base's own, bit for bit, and so changes nothing; null for any other. */
export function unchangedValue(laying: Laying, { tensor: value, name }: AbsoluteValue): Reason | null {
  const original = findOriginal(laying, name)
  if (!sameDigest(original?.digest, value.digest)) return null
  return info('unchanged-value', `The adapter holds a copy of the base's ${original?.name}, bit for bit; it has no effect.`, { tensor: value.name })
}

/** Digests of manifests that were read without hashing are empty, and say nothing. */
export function sameDigest(a: string | undefined, b: string | undefined): boolean {
  return a !== undefined && a !== '' && a === b
}

function absoluteRefusal({ base }: Laying, feature: Run['feature'], name: string, value: AdapterTensor, original: ManifestTensor | null): Reason {
  const code: ReasonCode = feature
  const why = base === null ? 'the base, by which to tell what training changed, is not at hand' : `the base has ${original === null ? `no ${name}` : `${name} in another form`}, so that what training changed cannot be told`
  return refusal(code, `The adapter holds ${TITLES[feature]}, ${name}: written onto the target it would overwrite what the target has learned, and ${why}.`, {
    tensor: value.name, expected: base === null ? 'the exact base' : `${name} of the shape ${describeShape(value.shape)} in the base`, found: original === null ? 'none' : `${original.dtype} ${describeShape(original.shape)}`,
    remedy: `${base === null ? 'Merge through a registry that holds the base' : 'Name the exact base of the patch'}, or ask for \`replace\` to overwrite what the target has learned.`,
  })
}

function sizeRefusal({ target }: Laying, value: AdapterTensor, name: string, tensor: ManifestTensor): Reason {
  const details = { tensor: value.name, expected: describeShape(value.shape), found: describeShape(tensor.shape) }
  if (isVocabularyLayer(name.replace(/\.weight$/, '')) && value.shape.length === 2 && value.shape[1] === tensor.shape[1]) {
    const size = target.manifest.facts.vocabularySize
    return refusal('vocabulary-size', `The adapter holds ${name} for a vocabulary of ${value.shape[0]} tokens; the target's has ${tensor.shape[0]}${size === null || size === tensor.shape[0] ? '' : ` (vocab_size ${size})`}: the embedding was resized in training.`, {
      ...details, remedy: 'Publish the base with the resized embedding as a version of its own and train on that, or save the adapter without the embedding (`save_embedding_layers=False`).',
    })
  }
  return refusal('shape-mismatch', `The target's ${tensor.name} has another shape than the adapter's value for it.`, { ...details, remedy: 'Choose a target of the same architecture and size as the base.' })
}

/** Values that cover a tensor whole may see it in any way; a vector is one row. */
function asMatrix(shape: readonly number[]): [rows: number, cols: number] {
  if (shape.length < 2) return [1, shape[0] ?? 1]
  return [shape[0]!, shape.slice(1).reduce((product, size) => product * size, 1)]
}
