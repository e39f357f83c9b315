import type { Adapter, AdapterModule, AdapterTensor } from './adapter.ts'
import { isMergeable } from './dtype.ts'
import type { AdditiveEdit, Edit, MatrixView } from './edit.ts'
import { checkLayers } from './layers.ts'
import type { ManifestTensor, ModelFacts, ModelManifest } from './manifest.ts'
import { describeShape, info, refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { tensorNames } from './tensor-names.ts'
import { isVocabularyLayer } from './vocabulary-layers.ts'

/** Model types of transformers whose layers are `Conv1D`, which stores its weight as (in, out), and those layers' names. */
const CONV1D_MODEL_TYPES: ReadonlySet<string> = new Set(['gpt2', 'openai-gpt', 'imagegpt', 'decision_transformer', 'clvp'])
const CONV1D_LAYERS: ReadonlySet<string> = new Set(['c_attn', 'q_attn', 'c_proj', 'c_fc'])

export interface AdapterEdits {
  /** One for each module that lands; in the order of the target's tensor names. */
  readonly edits: readonly Edit[]
  /** The adapter's own reasons, then those of laying it on the target. */
  readonly reasons: readonly Reason[]
}

/**
 * Lays an adapter on a target. Every factor must land on exactly one tensor of the right shape; what does not is
 * refused by name, where PEFT would be silent. With the base's manifest, layers that the base has too and copies of the
 * base's own embeddings are known for what they are.
 */
export function adapterEdits(adapter: Adapter, target: ModelManifest, base: ModelManifest | null = null): AdapterEdits {
  const reasons: Reason[] = [...adapter.reasons]
  if (target.facts.quantization !== null) {
    reasons.push(refusal('quantized-target', `The target is quantized (${target.facts.quantization}), and a patch cannot be added to quantized weights.`, {
      expected: 'weights in F32, F16 or BF16', found: target.facts.quantization, remedy: 'Publish and name the version of the model that is not quantized.',
    }))
  }
  const placed = placeModules(adapter, target, reasons)
  const edits: Edit[] = []
  for (const [module, tensor] of placed) {
    const edit = additiveEdit(module, tensor, adapter, target.facts, reasons)
    if (edit !== null) edits.push(edit)
  }
  reasons.push(...checkLayers(adapter, placed, target, base), ...checkCopies(adapter, base))
  edits.sort((a, b) => (a.target < b.target ? -1 : 1))
  return { edits, reasons }
}

/** The target tensor of each module, each taken once; the others are refused. */
function placeModules(adapter: Adapter, target: ModelManifest, reasons: Reason[]): Map<AdapterModule, ManifestTensor> {
  const names = tensorNames(target.tensors)
  const byName = new Map(target.tensors.map((tensor) => [tensor.name, tensor]))
  const placed = new Map<AdapterModule, ManifestTensor>()
  const takenBy = new Map<string, string>()
  let change: { readonly by: string; readonly module: string } | null = null
  for (const module of adapter.modules) {
    if (target.facts.tieWordEmbeddings && isVocabularyLayer(module)) {
      reasons.push(tiedRefusal(module))
      continue
    }
    const match = names.find(module.module)
    const [name] = match.names
    const tensor = name === undefined ? undefined : byName.get(name)
    if (match.names.length > 1) {
      reasons.push(ambiguous(module, `${match.names.slice(0, 3).join(' or ')}`))
    } else if (tensor === undefined) {
      // checkLayers explains the modules of layers that the target does not have.
      continue
    } else if (takenBy.has(tensor.name)) {
      reasons.push(refusal('tensor-edited-twice', `The adapter's modules ${takenBy.get(tensor.name)} and ${module.module} both mean the target's ${tensor.name}.`, { tensor: tensor.name }))
    } else if (match.change !== '' && change !== null && change.by !== match.change) {
      reasons.push(ambiguous(module, `${tensor.name}, although ${change.module} means its tensor by another prefix`))
    } else {
      if (match.change !== '') change ??= { by: match.change, module: module.module }
      takenBy.set(tensor.name, module.module)
      placed.set(module, tensor)
    }
  }
  return placed
}

function ambiguous({ module, a }: AdapterModule, found: string): Reason {
  return refusal('ambiguous-tensor', `The module ${module} may mean more than one tensor of the target.`, {
    tensor: a.name, expected: `exactly one tensor for ${module}.weight`, found, remedy: 'Train the adapter on the model class that wrote the checkpoint.',
  })
}

function tiedRefusal({ module, a }: AdapterModule): Reason {
  return refusal('tied-weights', `The adapter changes ${module}, but the target ties its input and output embeddings (tie_word_embeddings), so that a merge would change both.`, {
    tensor: a.name, expected: 'tie_word_embeddings: false', found: 'tie_word_embeddings: true', remedy: 'Train without the embedding layers, or publish a target whose embeddings are not tied.',
  })
}

function additiveEdit(module: AdapterModule, tensor: ManifestTensor, adapter: Adapter, facts: ModelFacts, reasons: Reason[]): AdditiveEdit | null {
  const { a, b, rank, scale } = module
  if (!isMergeable(tensor.dtype)) {
    reasons.push(refusal('target-dtype', `The target's ${tensor.name} is stored as ${tensor.dtype}, which a patch cannot be added to.`, { tensor: tensor.name, expected: 'F32, F16 or BF16', found: tensor.dtype, remedy: 'Publish the target in one of these dtypes.' }))
    return null
  }
  const delta = [b.shape[0] ?? 0, a.shape[1] ?? 0] as const
  const isTransposed = module.kind === 'embedding' || storesTransposed(module, adapter, facts)
  const expected = isTransposed ? [delta[1], delta[0]] : [...delta]
  if (!sameShape(tensor.shape, expected)) {
    reasons.push(shapeRefusal(module, tensor, expected, facts))
    return null
  }
  const [rows, cols] = expected as [number, number]
  const [left, right] = isTransposed ? [transposedView(a), transposedView(b)] : [storedView(b), storedView(a)]
  return { kind: 'additive', target: tensor.name, rows: { first: 0, count: rows }, cols, rank, scale, left, right, initial: null, consumes: [a.name, b.name] }
}

/** A matrix as it is stored. */
function storedView({ name, shape }: AdapterTensor): MatrixView {
  return { tensor: name, offset: 0, strides: [shape[1] ?? 0, 1] }
}

function transposedView({ name, shape }: AdapterTensor): MatrixView {
  return { tensor: name, offset: 0, strides: [1, shape[1] ?? 0] }
}

/** Whether the target's weight lies as (in, out). A square matrix does not tell, so the layer's class must. */
function storesTransposed({ module }: AdapterModule, adapter: Adapter, facts: ModelFacts): boolean {
  if (facts.modelType !== null && CONV1D_MODEL_TYPES.has(facts.modelType)) {
    // PEFT goes by the class of the layer as well, and corrects the config's one flag for each.
    return CONV1D_LAYERS.has(module.slice(module.lastIndexOf('.') + 1))
  }
  return adapter.config?.fan_in_fan_out ?? false
}

function shapeRefusal(module: AdapterModule, tensor: ManifestTensor, expected: readonly number[], facts: ModelFacts): Reason {
  const details = { tensor: tensor.name, expected: describeShape(expected), found: describeShape(tensor.shape) }
  if (tensor.shape.length === 2 && sameShape([...tensor.shape].reverse(), expected)) {
    return refusal('layout-mismatch', `The target stores ${tensor.name} the other way round than the adapter's \`fan_in_fan_out\` says.`, { ...details, remedy: 'Correct fan_in_fan_out in adapter_config.json.' })
  }
  if (isVocabularyLayer(module) && tensor.shape.length === 2) {
    return refusal('vocabulary-size', `The adapter changes ${tensor.name} for a vocabulary of another size than the target's${facts.vocabularySize === null ? '' : ` (${facts.vocabularySize})`}.`, { ...details, remedy: 'Train without the embedding layers, or on a model with this vocabulary.' })
  }
  return refusal('shape-mismatch', `The target's ${tensor.name} has another shape than the adapter was trained for.`, { ...details, remedy: 'Choose a target of the same architecture and size as the base.' })
}

/** A copied embedding may be left out only where it is the base's own, bit for bit. */
function checkCopies(adapter: Adapter, base: ModelManifest | null): Reason[] {
  const digests = new Map(base?.tensors.map(({ name, digest }) => [name, digest]))
  const names = base === null ? null : tensorNames(base.tensors)
  return adapter.copies.map(({ module, tensor }) => {
    const found = names?.find(module).names ?? []
    const original = found.length === 1 ? digests.get(found[0] ?? '') : undefined
    if (tensor.digest !== undefined && original === tensor.digest) {
      return info('embedding-copy', `The adapter holds a copy of the base's ${found[0]}, bit for bit; it has no effect.`, { tensor: tensor.name })
    }
    return refusal('embedding-copy', `The adapter holds a full copy of ${module}, which would overwrite what the target has learned.`, {
      tensor: tensor.name, expected: original ?? 'a digest of the base', found: tensor.digest ?? 'no digest', remedy: 'Save the adapter with `save_embedding_layers=False`.',
    })
  })
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, index) => size === b[index])
}
