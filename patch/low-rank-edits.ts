import { repeatableInitialisation } from './adapter-features.ts'
import type { AdapterModule, AdapterTensor } from './adapter.ts'
import type { AdditiveEdit, DenseEdit, DoraEdit, Edit, InitialFactors, MatrixView } from './edit.ts'
import { storesExpertsInOut } from './expert-tensors.ts'
import type { ExpertPart } from './expert-tensors.ts'
import type { Landing, Laying } from './laying.ts'
import type { ManifestTensor, ModelFacts } from './manifest.ts'
import { describeShape, info, refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { unusableTarget } from './target-dtype.ts'
import { isVocabularyLayer } from './vocabulary-layers.ts'

/** Model types of transformers whose layers are `Conv1D`, which stores its weight as (in, out), and those layers' names. */
const CONV1D_MODEL_TYPES: ReadonlySet<string> = new Set(['gpt2', 'openai-gpt', 'imagegpt', 'decision_transformer', 'clvp'])
const CONV1D_LAYERS: ReadonlySet<string> = new Set(['c_attn', 'q_attn', 'c_proj', 'c_fc'])

/** PEFT adds the product of an out_proj when it merges the layer around it and once more when it merges the layer itself. */
const OUT_PROJECTION_FACTOR = 2

/** A pair of factors on the tensor where it lands; and the bias of B on the layer's bias. */
export function layModule(laying: Laying, module: AdapterModule, landing: Landing): Edit[] {
  const matrix = layMatrix(laying, module, landing)
  if (matrix === null) return []
  const bias = module.bias === null ? null : layBias(laying, module, module.bias, landing)
  return bias === null ? [matrix] : [matrix, bias]
}

function layMatrix(laying: Laying, module: AdapterModule, { name, tensor, rows: some, isShared }: Landing): AdditiveEdit | DoraEdit | null {
  const { kind, a, b, magnitude, rank } = module
  const { facts } = laying.target.manifest
  const unusable = unusableTarget(laying.target, tensor)
  if (unusable !== null) return laying.refuse(unusable)
  const isTransposed = kind === 'embedding' || (kind === 'linear' && !isAttention(name) && storesTransposed(module, laying, facts))
  const [out, columns] = [b.shape[0]!, a.shape.slice(1).reduce((product, size) => product * size, 1)]
  const expected = kind === 'convolution' ? [out, ...a.shape.slice(1)] : isTransposed ? [columns, out] : [out, columns]
  if (kind === 'convolution' && hasGroups(module, tensor)) return laying.refuse(groupsRefusal(module, tensor))
  const found = some === null ? tensor.shape : [some.count, tensor.shape.at(-1)!]
  if (!sameShape(found, expected)) return laying.refuse(shapeRefusal(module, { ...tensor, shape: found }, expected, facts))
  if (isAttention(name)) {
    const problem = attentionRefusal(module, tensor)
    if (problem !== null) return laying.refuse(problem)
  }
  const [rows, cols] = [expected[0]!, expected.slice(1).reduce((product, size) => product * size, 1)]
  const scale = kind === 'out-projection' ? module.scale * OUT_PROJECTION_FACTOR : module.scale
  if (kind === 'out-projection') {
    laying.reasons.push(info('multihead-attention', `The product for ${name} is added twice, as PEFT does in training and in merging.`, { tensor: name }))
  }
  const [left, right] = isTransposed ? [turned(a, columns), turned(b, rank)] : [stored(b, rank), stored(a, columns)]
  const common = { target: name, rows: some ?? { first: 0, count: rows }, cols, isShared, rank, scale, left, right, consumes: [a.name, b.name] }
  if (magnitude !== null) {
    if (repeatableInitialisation(laying.config) !== null && kind !== 'embedding') return laying.refuse(initialisationRefusal(laying, module, tensor, onLayer('with DoRA')))
    return { ...common, kind: 'dora', magnitude: { tensor: magnitude.name, offset: 0 }, axis: isTransposed ? 'columns' : 'rows', consumes: [...common.consumes, magnitude.name] }
  }
  const initial = findInitial(laying, module, tensor, isTransposed)
  return initial === undefined ? null : { ...common, kind: 'additive', initial }
}

/** What PiSSA or OLoRA took out of the base; undefined where it cannot be told and was refused. */
function findInitial(laying: Laying, module: AdapterModule, tensor: ManifestTensor, isTransposed: boolean): InitialFactors | null | undefined {
  const method = repeatableInitialisation(laying.config)
  // PEFT starts embeddings the ordinary way whatever the config says.
  if (method === null || module.kind === 'embedding') return null
  const original = laying.base?.find(`${module.module}.weight`) ?? null
  const problem =
    module.kind !== 'linear' || isAttention(tensor.name) ? onLayer('that is not linear')
    // PEFT decomposes the weight as it is stored, and then reads the factors the other way round.
    : method === 'olora' && isTransposed ? onLayer('of Conv1D')
    : laying.base === null ? NO_BASE
    : original === null || !sameShape(original.shape, tensor.shape) || module.rank > Math.min(...original.shape)
      ? `the base has no such tensor as the target's ${tensor.name} from which to make the change anew`
    // PEFT refuses float64 and scaled weights, so that it was given a copy; fp8 without scales is widened exactly to any.
    : original.dtype === 'F64' || unusableTarget(laying.base, original) !== null
      ? `PEFT does not start from ${original.dtype}${original.dtype.startsWith('F8') ? ' with scales' : ''}, as the base stores ${original.name}, so that it was given a copy in another dtype, and which one is not told`
    : null
  if (problem === null) return { method, base: original!.name }
  laying.refuse(initialisationRefusal(laying, module, tensor, problem))
  return undefined
}

const NO_BASE = 'no base'

function onLayer(kind: string): string {
  return `on a layer ${kind} that cannot be made anew`
}

function initialisationRefusal(laying: Laying, { module, a }: AdapterModule, tensor: ManifestTensor, problem: string): Reason {
  const title = repeatableInitialisation(laying.config) === 'pissa' ? 'PiSSA' : 'OLoRA'
  const convert = 'save the adapter again with `model.save_pretrained(path, path_initial_model_for_weight_conversion=…)`, which turns it into plain LoRA.'
  if (problem === NO_BASE) {
    return refusal('base-changing-initialisation', `The adapter was initialised with ${title} (\`init_lora_weights\`), which changed the base when training began; to take that change out again, the base itself is needed.`, {
      tensor: a.name, expected: 'the exact base', found: 'none', remedy: `Merge through a registry that holds the base, or ${convert}`,
    })
  }
  return refusal('base-changing-initialisation', `The adapter was initialised with ${title} (\`init_lora_weights\`), which changed ${module} of the base when training began, and ${problem}.`, {
    tensor: a.name, expected: describeShape(tensor.shape), remedy: `S${convert.slice(1)}`,
  })
}

function layBias(laying: Laying, { module, scale, b }: AdapterModule, bias: AdapterTensor, { name, isShared }: Landing): DenseEdit | null {
  const target = isAttention(name) ? null : laying.target.find(`${module}.bias`)
  if (isAttention(name)) {
    return laying.refuse(refusal('lora-bias', `The adapter holds a bias of B for ${module}, a torch.nn.MultiheadAttention, which PEFT never uses.`, { tensor: bias.name, remedy: 'Remove the tensor, or train without `lora_bias`.' }))
  }
  if (target === null) {
    return laying.refuse(refusal('lora-bias', `The adapter holds a trained bias (\`lora_bias\`) for ${module}, which has no bias in the target.`, { tensor: bias.name, expected: `${module}.bias`, found: 'none', remedy: 'Train without `lora_bias`.' }))
  }
  const unusable = unusableTarget(laying.target, target)
  if (unusable !== null) return laying.refuse(unusable)
  if (!sameShape(target.shape, [b.shape[0]!])) return laying.refuse(refusal('shape-mismatch', `The target's ${target.name} has another shape than the adapter was trained for.`, { tensor: target.name, expected: describeShape([b.shape[0]!]), found: describeShape(target.shape), remedy: 'Choose a target of the same architecture and size as the base.' }))
  return { kind: 'dense', target: target.name, rows: { first: 0, count: 1 }, cols: b.shape[0]!, isShared, scale, value: { tensor: bias.name, offset: 0 }, base: null, consumes: [bias.name] }
}

/** A pair of factors for a bare parameter: a matrix like any other, or those of E experts, in one tensor or in several. */
export function layParameter(laying: Laying, module: AdapterModule, name: string, parts: readonly ExpertPart[]): Edit[] {
  const { a, b, rank } = module
  const experts = a.shape[0]! / rank
  if (repeatableInitialisation(laying.config) !== null) {
    laying.refuse(initialisationRefusal(laying, module, parts[0]!.tensor, 'on a bare parameter that cannot be made anew'))
    return []
  }
  const unusable = parts.map(({ tensor }) => unusableTarget(laying.target, tensor)).find((reason) => reason !== null)
  if (unusable !== undefined) {
    laying.refuse(unusable)
    return []
  }
  const layout = expertLayout(module, parts, experts, laying.target.modelType)
  if (layout === null) {
    laying.refuse(refusal('shape-mismatch', `The target's tensors for ${name} have other shapes than the adapter was trained for.`, {
      tensor: parts[0]!.tensor.name, expected: `${experts} × ${describeShape([b.shape[0]!, a.shape[1]!])}`, found: describeShape(parts[0]!.tensor.shape), remedy: 'Choose a target of the same architecture and size as the base.',
    }))
    return []
  }
  return parts.flatMap((part) => Array.from({ length: part.expert.count }, (_, index) => expertEdit(module, part, index, layout, experts)))
}

/** How an expert's matrix lies on disk, or null where no layout fits the factors. */
function expertLayout({ a, b }: AdapterModule, parts: readonly ExpertPart[], experts: number, modelType: string | null): 'out-in' | 'in-out' | null {
  const [inner, out] = [a.shape[1]!, b.shape[0]!]
  const rowsOf = (part: ExpertPart) => part.tensor.shape.at(-2) ?? 1
  const isWhole = parts.every(({ rows }) => rows === null)
  const first = parts.filter(({ expert }) => expert.first === 0)
  const rows = isWhole ? rowsOf(first[0]!) : first.reduce((sum, part) => sum + rowsOf(part), 0)
  const cols = first[0]!.tensor.shape.at(-1)!
  const isStacked = first[0]!.expert.count > 1 || experts === 1
  const fitsStack = parts.every(({ tensor, expert, rows: taken }) =>
    tensor.shape.at(-1) === cols && rowsOf({ tensor, expert, rows: null }) === (taken?.count ?? rows) && leading(tensor) === (isStacked ? experts : 1))
  if (!fitsStack) return null
  const outIn = rows === out && cols === inner
  const inOut = isWhole && rows === inner && cols === out
  if (outIn && inOut) return storesExpertsInOut(modelType) && isStacked && experts > 1 ? 'in-out' : 'out-in'
  // Two dimensions are never turned: PEFT adds B·A as it is.
  return outIn ? 'out-in' : inOut && parts[0]!.tensor.shape.length === 3 ? 'in-out' : null
}

/** The number of matrices in a tensor. */
function leading({ shape }: ManifestTensor): number {
  return shape.slice(0, -2).reduce((product, size) => product * size, 1)
}

/** One expert's product: its rows of A, which lie together, and every E-th column of B. */
function expertEdit({ a, b, rank, scale }: AdapterModule, { tensor, expert, rows: taken }: ExpertPart, index: number, layout: 'out-in' | 'in-out', experts: number): AdditiveEdit {
  const number = expert.first + index
  const [inner, columns] = [a.shape[1]!, b.shape[1]!]
  const factorA = (strides: readonly [number, number]): MatrixView => ({ tensor: a.name, offset: number * rank * inner, strides })
  const factorB = (strides: readonly [number, number], firstRow = 0): MatrixView => ({ tensor: b.name, offset: number + firstRow * columns, strides })
  const [count, cols] = [tensor.shape.at(-2) ?? 1, tensor.shape.at(-1)!]
  const [left, right] = layout === 'out-in' ? [factorB([columns, experts], taken?.first), factorA([inner, 1])] : [factorA([1, inner]), factorB([experts, columns])]
  return { kind: 'additive', target: tensor.name, rows: { first: index * count, count }, cols, isShared: false, rank, scale, left, right, initial: null, consumes: [a.name, b.name] }
}

/** A factor as it is stored, `columns` to a row; a convolution's kernel is folded into them. */
function stored({ name }: AdapterTensor, columns: number): MatrixView {
  return { tensor: name, offset: 0, strides: [columns, 1] }
}

function turned({ name }: AdapterTensor, columns: number): MatrixView {
  return { tensor: name, offset: 0, strides: [1, columns] }
}

/** Whether the target's weight lies as (in, out). A square matrix does not tell, so the layer's class must. */
function storesTransposed({ module }: AdapterModule, { config }: Laying, facts: ModelFacts): boolean {
  if (facts.modelType !== null && CONV1D_MODEL_TYPES.has(facts.modelType)) {
    // PEFT goes by the class of the layer as well, and corrects the config's one flag for each.
    return CONV1D_LAYERS.has(module.slice(module.lastIndexOf('.') + 1))
  }
  return config.fan_in_fan_out
}

function isAttention(tensor: string): boolean {
  return tensor.endsWith('.in_proj_weight') || tensor === 'in_proj_weight'
}

function attentionRefusal({ module, kind, magnitude, a }: AdapterModule, tensor: ManifestTensor): Reason | null {
  if (kind === 'linear' && magnitude === null) return null
  return refusal('multihead-attention', `The adapter changes ${module}, a torch.nn.MultiheadAttention in the target (${tensor.name}), in a way that PEFT does not know there.`, { tensor: a.name, remedy: 'Train a plain LoRA on it.' })
}

/** With groups, PEFT's A sees all inputs and B only its group's share of the rank. */
function hasGroups({ a, b }: AdapterModule, tensor: ManifestTensor): boolean {
  return a.shape[0] !== b.shape[1] || (tensor.shape.length === a.shape.length && tensor.shape[0] === b.shape[0] && tensor.shape[1] !== a.shape[1] && a.shape[1]! % tensor.shape[1]! === 0)
}

function groupsRefusal({ module, a, b }: AdapterModule, tensor: ManifestTensor): Reason {
  return refusal('convolution', `The adapter changes ${module}, a convolution with groups, which PEFT cannot merge either: the product of its factors is no kernel.`, {
    tensor: a.name, expected: `${describeShape(a.shape)} and ${describeShape([b.shape[0]!, a.shape[0]!])} for ${describeShape(tensor.shape)}`, found: `${describeShape(a.shape)} and ${describeShape(b.shape)}`, remedy: 'Leave layers with groups out of target_modules.',
  })
}

function shapeRefusal({ module, kind }: Pick<AdapterModule, 'module' | 'kind'>, tensor: ManifestTensor, expected: readonly number[], facts: ModelFacts): Reason {
  const details = { tensor: tensor.name, expected: describeShape(expected), found: describeShape(tensor.shape) }
  if (tensor.shape.length === 2 && sameShape([...tensor.shape].reverse(), expected)) {
    return refusal('layout-mismatch', `The target stores ${tensor.name} the other way round than the adapter's \`fan_in_fan_out\` says.`, { ...details, remedy: 'Correct fan_in_fan_out in adapter_config.json.' })
  }
  if ((kind === 'embedding' || isVocabularyLayer(module)) && tensor.shape.length === 2) {
    return refusal('vocabulary-size', `The adapter changes ${tensor.name} for a vocabulary of another size than the target's${facts.vocabularySize === null ? '' : ` (${facts.vocabularySize})`}.`, { ...details, remedy: 'Train without the embedding layers, or on a model with this vocabulary.' })
  }
  return refusal('shape-mismatch', `The target's ${tensor.name} has another shape than the adapter was trained for.`, { ...details, remedy: 'Choose a target of the same architecture and size as the base.' })
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, index) => size === b[index])
}
