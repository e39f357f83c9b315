import { AdapterError, readAdapterConfig } from './adapter-config.ts'
import type { LoraConfig } from './adapter-config.ts'
import { missingFeature, unexpectedTensor, unsupportedFeatures } from './adapter-features.ts'
import { readAdapterKey } from './adapter-keys.ts'
import type { AdapterKey, WrappedModule } from './adapter-keys.ts'
import { readTokenRows } from './token-rows.ts'
import type { TokenRows } from './token-rows.ts'
import { isMergeable } from './dtype.ts'
import type { ManifestTensor } from './manifest.ts'
import { readPatterns } from './module-patterns.ts'
import { describeShape, refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { readTargetParameters } from './target-parameters.ts'
import { checkTargeting } from './targeting.ts'
import { isInputEmbedding, isOutputHead } from './vocabulary-layers.ts'

export { AdapterError } from './adapter-config.ts'
export type { TokenRows } from './token-rows.ts'

/** A tensor of adapter_model.safetensors; its digest is needed only where full values are told from the base's own. */
export type AdapterTensor = Pick<ManifestTensor, 'name' | 'dtype' | 'shape'> & { readonly digest?: string }

/** A pair of factors and what belongs to them. */
export interface AdapterModule {
  /** Path of the module in the model that PEFT wrapped, such as `model.layers.0.self_attn.q_proj`. */
  readonly module: string
  /**
   * `linear`: B·A has the shape (out, in), and so where the module turns out to be a torch.nn.MultiheadAttention for its
   * in_proj. `out-projection`: the out_proj within one. `embedding`: (B·A)ᵀ has the shape (vocabulary, dimension).
   * `convolution`: A is (rank, in, kernel…), B (out, rank, 1…). `parameter`: for a bare parameter; of E experts, A is
   * (E·rank, in) and B (out, rank·E), the expert being A's slowest index and B's fastest.
   */
  readonly kind: 'linear' | 'out-projection' | 'embedding' | 'convolution' | 'parameter'
  /** Name of the bare parameter within the module, for the kind `parameter`. */
  readonly parameter: string | null
  readonly a: AdapterTensor
  readonly b: AdapterTensor
  /** DoRA's magnitudes, one for each output. */
  readonly magnitude: AdapterTensor | null
  /** Trained bias of B (`lora_bias`). */
  readonly bias: AdapterTensor | null
  readonly rank: number
  readonly alpha: number
  /** `alpha/rank`, or `alpha/√rank` with rslora, in float64. */
  readonly scale: number
}

/** A full value for a tensor of the model, which would overwrite what the target has learned. */
export interface AbsoluteValue {
  readonly tensor: AdapterTensor
  /** Name of the tensor in the model that PEFT saw. */
  readonly name: string
  readonly feature: 'modules-to-save' | 'trained-bias' | 'embedding-copy'
}

/** What a PEFT adapter says, before any target is looked at. */
export interface Adapter {
  /** In the order of their tensors' names. */
  readonly modules: readonly AdapterModule[]
  readonly values: readonly AbsoluteValue[]
  readonly tokens: readonly TokenRows[]
  /** Tensors that say once more what another says, and have no effect of their own. */
  readonly repeated: readonly AdapterTensor[]
  /** Null where `peft_type` is not LORA. */
  readonly config: LoraConfig | null
  /** Refusals for what cannot be merged, and warnings; they hold for every target. */
  readonly reasons: readonly Reason[]
}

interface Pair {
  readonly wrapped: WrappedModule
  readonly isEmbedding: boolean
  a?: AdapterTensor
  b?: AdapterTensor
  magnitude?: AdapterTensor
  bias?: AdapterTensor
}

/**
 * Reads adapter_config.json and the tensors of adapter_model.safetensors as PEFT 0.21 writes them. Throws AdapterError
 * for files that are malformed or contradict each other; a sound adapter of a variety that cannot be merged comes back
 * with refusals among its `reasons` (docs: adapter-semantics).
 */
export function readAdapter(configText: string, tensors: readonly AdapterTensor[]): Adapter {
  const read = readAdapterConfig(configText)
  const features = unsupportedFeatures(read)
  if (read.config === null) return { modules: [], values: [], tokens: [], repeated: [], config: null, reasons: features }
  const config = read.config
  const sorted = sortTensors(tensors)
  const parameters = readTargetParameters(config, depthsOf(sorted.pairs))
  const named = [...sorted.pairs.values()].map((pair) => ({ pair, parameter: parameterOf(pair, parameters.parameters) }))
  const patterns = readPatterns(config, named.map(patternName))
  // Where the config names a variety, its tensors need not name it again.
  const untold = sorted.unexpected.filter(({ code }) => !features.some((feature) => feature.code === code))
  const reasons = [...features, ...untold, ...parameters.reasons, ...patterns.reasons]
  const isRefused = reasons.some(({ severity }) => severity === 'refusal')
  const modules: AdapterModule[] = []
  for (const { pair, parameter } of named) {
    const found = readModule(pair, parameter, config, patterns.of(patternName({ pair, parameter })))
    if (found instanceof AdapterError) {
      // A variety that is refused anyway may well have factors of other shapes.
      if (!isRefused) throw found
    } else {
      modules.push(found.module)
      reasons.push(...found.reasons)
    }
  }
  const { values, repeated, reasons: repetitions } = readRepeated(sorted)
  const tokens = readTokenRows(config, sorted.rows)
  const empty = sorted.pairs.size + values.length + tokens.rows.length > 0 ? []
    : [refusal('empty-adapter', 'The adapter holds no LoRA factors.', { expected: 'tensors named base_model.model.<module>.lora_A.weight', found: `${tensors.length} other tensors` })]
  const all = [...reasons, ...repetitions, ...tokens.reasons, ...checkValues(sorted, config), ...empty, ...checkTargeting(config, targetedModules(config, modules))]
  return { modules, values, tokens: tokens.rows, repeated, config, reasons: all }
}

interface SortedTensors {
  readonly pairs: Map<string, Pair>
  readonly values: AbsoluteValue[]
  readonly rows: { module: string; tensor: AdapterTensor }[]
  readonly biasesAgain: { key: Extract<AdapterKey, { kind: 'bias-again' }>; tensor: AdapterTensor }[]
  readonly unexpected: Reason[]
}

function sortTensors(tensors: readonly AdapterTensor[]): SortedTensors {
  const sorted: SortedTensors = { pairs: new Map(), values: [], rows: [], biasesAgain: [], unexpected: [] }
  for (const tensor of [...tensors].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const key = readAdapterKey(tensor.name)
    if (key === null) {
      sorted.unexpected.push(unexpectedTensor(tensor.name))
      continue
    }
    switch (key.kind) {
      case 'token-rows': sorted.rows.push({ module: key.module, tensor }); break
      case 'embedding-copy': sorted.values.push({ tensor, name: key.name, feature: 'embedding-copy' }); break
      case 'value': sorted.values.push({ tensor, name: key.name, feature: key.name.endsWith('.bias') ? 'trained-bias' : 'modules-to-save' }); break
      case 'bias-again': sorted.biasesAgain.push({ key, tensor }); break
      default: addToPair(sorted.pairs, key, tensor)
    }
  }
  for (const [id, { a, b, magnitude, bias }] of sorted.pairs) {
    const stray = a === undefined && b === undefined ? (magnitude ?? bias) : undefined
    if (stray === undefined) continue
    sorted.pairs.delete(id)
    sorted.unexpected.push(unexpectedTensor(stray.name))
  }
  return sorted
}

function addToPair(pairs: Map<string, Pair>, key: Extract<AdapterKey, WrappedModule>, tensor: AdapterTensor): void {
  const { module, depth, isOutProjection } = key
  const id = `${module}${isOutProjection ? ' out' : ''} ${depth}`
  const isEmbedding = key.kind === 'factor' ? key.isEmbedding : (pairs.get(id)?.isEmbedding ?? false)
  const pair = pairs.get(id) ?? { wrapped: { module, depth, isOutProjection }, isEmbedding }
  const part = key.kind === 'factor' ? key.side : key.kind === 'magnitude' ? 'magnitude' : 'bias'
  if (pair[part] !== undefined || (key.kind === 'factor' && pair.isEmbedding !== isEmbedding)) {
    throw new AdapterError('duplicate-tensor', `The adapter holds more than one pair of factors for the module ${module}.`, tensor.name)
  }
  pair[part] = tensor
  pairs.set(id, pair)
}

function depthsOf(pairs: ReadonlyMap<string, Pair>): Map<string, Set<number>> {
  const depths = new Map<string, Set<number>>()
  for (const { wrapped: { module, depth, isOutProjection } } of pairs.values()) {
    if (!isOutProjection) depths.set(module, (depths.get(module) ?? new Set()).add(depth))
  }
  return depths
}

function parameterOf({ wrapped }: Pair, parameters: ReadonlyMap<string, readonly string[]>): string | null {
  return wrapped.isOutProjection ? null : (parameters.get(wrapped.module)?.[wrapped.depth] ?? null)
}

/** What PEFT looks up in rank_pattern and alpha_pattern: the module, or the parameter with its module. */
function patternName({ pair, parameter }: { readonly pair: Pair; readonly parameter: string | null }): string {
  return parameter === null ? pair.wrapped.module : `${pair.wrapped.module}.${parameter}`
}

function readModule(pair: Pair, parameter: string | null, config: LoraConfig, { rank, alpha }: { rank: number; alpha: number }): AdapterError | { module: AdapterModule; reasons: Reason[] } {
  const { wrapped: { module: path, isOutProjection, depth }, isEmbedding, a, b, magnitude = null, bias = null } = pair
  const module = isOutProjection ? `${path}.out_proj` : path
  if (a === undefined || b === undefined) {
    const present = (a ?? b)!.name
    const missing = a === undefined ? present.replace(/_B(\.weight)?$/, '_A$1') : present.replace(/_A(\.weight)?$/, '_B$1')
    return new AdapterError('unpaired-factor', `The adapter holds ${present} without ${missing}.`, present)
  }
  const dimensions = a.shape.length
  const kind = isOutProjection ? 'out-projection' : parameter !== null || depth > 0 ? 'parameter' : isEmbedding ? 'embedding' : dimensions > 2 ? 'convolution' : 'linear'
  const problem = pairProblem(module, kind, a, b, rank)
  if (problem !== null) return problem
  const found: AdapterModule = { module, kind, parameter, a, b, magnitude, bias, rank, alpha, scale: alpha / (config.use_rslora ? Math.sqrt(rank) : rank) }
  return { module: found, reasons: [...checkFactorDtypes(found), ...missingFeature(found, config)] }
}

function checkFactorDtypes({ a, b, magnitude, bias }: AdapterModule): Reason[] {
  const wrong = [a, b, magnitude, bias].filter((factor) => factor !== null).find(({ dtype }) => !isMergeable(dtype))
  return wrong === undefined ? [] : [refusal('factor-dtype', `The factor ${wrong.name} is stored as ${wrong.dtype}.`, { tensor: wrong.name, expected: 'F32, F16 or BF16', found: wrong.dtype, remedy: 'Save the adapter in float32, float16 or bfloat16.' })]
}

function pairProblem(module: string, kind: AdapterModule['kind'], a: AdapterTensor, b: AdapterTensor, rank: number): AdapterError | null {
  const wanted = kind === 'convolution' ? [3, 4, 5] : [2]
  for (const factor of [a, b]) {
    if (!wanted.includes(factor.shape.length) || factor.shape.length !== a.shape.length || factor.shape.some((size) => size === 0)) {
      return new AdapterError('factor-shape', `The factor ${factor.name} has the shape ${describeShape(factor.shape)}; a factor is a matrix, or for a convolution as A is.`, factor.name)
    }
  }
  const [ranks, inner] = [a.shape[0]!, b.shape[1]!]
  if (kind === 'convolution') {
    if (b.shape.slice(2).some((size) => size !== 1)) return new AdapterError('factor-shape', `The factor ${b.name} has the shape ${describeShape(b.shape)}; B of a convolution has a kernel of 1.`, b.name)
    // With groups, B has a group's share of the rank; where it lies tells how many.
    if (ranks % inner !== 0) return mismatch(module, a, b)
  } else if (ranks !== inner) {
    return mismatch(module, a, b)
  }
  const isExperts = kind === 'parameter'
  if (isExperts ? ranks % rank !== 0 : ranks !== rank) {
    return new AdapterError('rank-mismatch', `The factor ${a.name} has rank ${ranks}, but adapter_config.json gives ${module} rank ${rank}${isExperts ? ' for each expert' : ''}.`, a.name)
  }
  return null
}

function mismatch(module: string, a: AdapterTensor, b: AdapterTensor): AdapterError {
  return new AdapterError('rank-mismatch', `The factors of ${module} do not fit each other: A has the shape ${describeShape(a.shape)}, B ${describeShape(b.shape)}.`, a.name)
}

/** `bias: all` saves the biases of fully trained modules three times: as their own, under the wrapper, and as they were. */
function readRepeated({ values, biasesAgain }: SortedTensors): { values: AbsoluteValue[]; repeated: AdapterTensor[]; reasons: Reason[] } {
  const reasons: Reason[] = []
  const byName = new Map(values.map(({ name, tensor }) => [name, tensor]))
  for (const { key, tensor } of biasesAgain) {
    const value = byName.get(key.name)
    const isSame = value !== undefined && (key.of === 'original' || value.digest === undefined || value.digest === tensor.digest)
    if (isSame) continue
    reasons.push(refusal('trained-bias', `The adapter holds ${tensor.name} beside ${value === undefined ? 'no' : 'another'} value of ${key.name}.`, { tensor: tensor.name, expected: value?.digest ?? `base_model.model.${key.name}`, found: tensor.digest ?? 'none', remedy: 'Save the adapter with PEFT\'s `save_pretrained`.' }))
  }
  return { values, repeated: biasesAgain.map(({ tensor }) => tensor), reasons }
}

/**
 * PEFT puts a value back under the name that the module has while it is wrapped: a value of a wrapped module without
 * `base_layer` in its name, or of another one with it, would be left out without a word.
 */
function checkValues({ pairs, rows, values }: SortedTensors, config: LoraConfig): Reason[] {
  const wrapped = new Set([...pairs.values()].filter(({ wrapped: { depth } }) => depth === 0).map(({ wrapped: { module, isOutProjection } }) => (isOutProjection ? `${module}.out_proj` : module)))
  for (const { module } of rows) wrapped.add(module)
  const reasons = values
    .filter(({ name, tensor }) => wrapped.has(name.slice(0, name.lastIndexOf('.'))) !== tensor.name.includes('.base_layer.'))
    .map(({ name, tensor, feature }) => refusal(feature, `The adapter holds ${tensor.name} under a name that PEFT would leave out.`, { tensor: tensor.name, expected: `the name that PEFT's save_pretrained gives ${name}`, remedy: 'Save the adapter with PEFT\'s `save_pretrained`.' }))
  if (config.modules_to_save?.length && !values.some(({ feature }) => feature !== 'embedding-copy')) {
    reasons.push(refusal('modules-to-save', 'The config trains modules fully (`modules_to_save`), but the adapter holds none of their values.', { expected: config.modules_to_save.join(', ').slice(0, 500), found: 'none', remedy: 'Save the adapter with PEFT\'s `save_pretrained`.' }))
  }
  return reasons
}

/** The modules that target_modules has to name: not those of bare parameters, nor a head that `ensure_weight_tying` added. */
function targetedModules(config: LoraConfig, modules: readonly AdapterModule[]): string[] {
  const isTied = config.ensure_weight_tying && modules.some(({ module }) => isInputEmbedding(module))
  return modules
    .filter(({ kind, module }) => kind !== 'parameter' && !(isTied && isOutputHead(module)))
    .map(({ kind, module }) => (kind === 'out-projection' ? module.slice(0, -'.out_proj'.length) : module))
}
