import { AdapterError, readAdapterConfig } from './adapter-config.ts'
import type { LoraConfig } from './adapter-config.ts'
import { unexpectedTensor, unsupported, unsupportedFeatures } from './adapter-features.ts'
import { isMergeable } from './dtype.ts'
import type { ManifestTensor } from './manifest.ts'
import { readPatterns } from './module-patterns.ts'
import { describeShape, refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { checkTargeting } from './targeting.ts'

export { AdapterError } from './adapter-config.ts'

/** A tensor of adapter_model.safetensors; its digest is needed only for copied embeddings. */
export type AdapterTensor = Pick<ManifestTensor, 'name' | 'dtype' | 'shape'> & Partial<Pick<ManifestTensor, 'digest'>>

/** The pair of factors that an adapter holds for one module. */
export interface AdapterModule {
  /** Path of the module in the model that PEFT wrapped, such as `model.layers.0.self_attn.q_proj`. */
  readonly module: string
  /** `linear`: B·A has the shape (out, in). `embedding`: (B·A)ᵀ has the shape (vocabulary, dimension). */
  readonly kind: 'linear' | 'embedding'
  /** (rank, in); for an embedding (rank, vocabulary). */
  readonly a: AdapterTensor
  /** (out, rank); for an embedding (dimension, rank). */
  readonly b: AdapterTensor
  readonly rank: number
  readonly alpha: number
  /** `alpha/rank`, or `alpha/√rank` with rslora, in float64. */
  readonly scale: number
}

/** What a PEFT adapter says, before any target is looked at. */
export interface Adapter {
  /** In the order of their tensors' names. */
  readonly modules: readonly AdapterModule[]
  /** Full copies of embeddings, which PEFT saves beside LoRA on them; harmless where they equal the base's. */
  readonly copies: readonly { readonly module: string; readonly tensor: AdapterTensor }[]
  /** Null where `peft_type` is not LORA. */
  readonly config: LoraConfig | null
  /** Refusals for what cannot be merged, and warnings; they hold for every target. */
  readonly reasons: readonly Reason[]
}

const PREFIX = 'base_model.model.'
const FACTORS = [
  { suffix: '.lora_A.weight', kind: 'linear', side: 'a' },
  { suffix: '.lora_B.weight', kind: 'linear', side: 'b' },
  { suffix: '.lora_embedding_A', kind: 'embedding', side: 'a' },
  { suffix: '.lora_embedding_B', kind: 'embedding', side: 'b' },
] as const
const COPY_SUFFIX = '.base_layer.weight'

interface Pair {
  kind: AdapterModule['kind']
  a?: AdapterTensor
  b?: AdapterTensor
}

/**
 * Reads adapter_config.json and the tensors of adapter_model.safetensors as PEFT 0.21 writes them. Throws AdapterError
 * for files that are malformed or contradict each other; a sound adapter of a variety that cannot be merged comes back
 * with refusals among its `reasons` (docs: adapter-semantics).
 */
export function readAdapter(configText: string, tensors: readonly AdapterTensor[]): Adapter {
  const read = readAdapterConfig(configText)
  const features = unsupportedFeatures(read)
  if (read.config === null) return { modules: [], copies: [], config: null, reasons: features }
  const { pairs, copies, unexpected } = sortTensors(tensors)
  const config = read.config
  const patterns = readPatterns(config, [...pairs.keys()])
  // Where the config names a variety, its tensors need not name it again.
  const untold = unexpected.filter(({ code }) => !features.some((feature) => feature.code === code))
  const reasons = [...features, ...untold, ...patterns.reasons]
  const isRefused = reasons.some(({ severity }) => severity === 'refusal')
  const modules: AdapterModule[] = []
  for (const [module, pair] of pairs) {
    const { rank, alpha } = patterns.of(module)
    const odd = oddFactor(module, pair)
    if (odd !== null) {
      reasons.push(odd)
      continue
    }
    const problem = pairProblem(module, pair, rank)
    // A variety that is refused anyway may well have factors of other shapes.
    if (problem !== null && isRefused) continue
    if (problem !== null) throw problem
    const { kind, a, b } = pair as Required<Pair>
    modules.push({ module, kind, a, b, rank, alpha, scale: alpha / (config.use_rslora ? Math.sqrt(rank) : rank) })
  }
  if (pairs.size === 0) {
    reasons.push(refusal('empty-adapter', 'The adapter holds no LoRA factors.', { expected: 'tensors named base_model.model.<module>.lora_A.weight', found: `${tensors.length} other tensors` }))
  }
  reasons.push(...checkTargeting(config, modules.map(({ module }) => module)))
  return { modules, copies, config, reasons }
}

function sortTensors(tensors: readonly AdapterTensor[]) {
  const pairs = new Map<string, Pair>()
  const copies: { module: string; tensor: AdapterTensor }[] = []
  const unexpected: Reason[] = []
  for (const tensor of [...tensors].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const factor = FACTORS.find(({ suffix }) => tensor.name.endsWith(suffix))
    const module = tensor.name.slice(PREFIX.length, -(factor?.suffix ?? COPY_SUFFIX).length)
    if (!tensor.name.startsWith(PREFIX) || !isModulePath(module) || !(factor || tensor.name.endsWith(COPY_SUFFIX))) {
      unexpected.push(unexpectedTensor(tensor.name))
    } else if (factor === undefined) {
      copies.push({ module, tensor })
    } else {
      const pair = pairs.get(module) ?? { kind: factor.kind }
      if (pair.kind !== factor.kind || pair[factor.side] !== undefined) {
        throw new AdapterError('duplicate-tensor', `The adapter holds more than one pair of factors for the module ${module}.`, tensor.name)
      }
      pair[factor.side] = tensor
      pairs.set(module, pair)
    }
  }
  return { pairs, copies, unexpected }
}

/** PEFT wraps a wrapped module in `base_layer`; what lies inside one is no plain layer. */
function isModulePath(module: string): boolean {
  return /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(module) && !/(^|\.)(base_layer|lora_[A-Z]\w*|modules_to_save|token_adapter)(\.|$)/.test(module)
}

/** The refusal for factors that are sound but of another layer than a linear one. */
function oddFactor(module: string, { a, b }: Pair): Reason | null {
  for (const factor of [a, b]) {
    if (factor === undefined) continue
    if (factor.shape.length > 2) {
      return unsupported('convolution', `a convolution (the factors of ${module} have ${factor.shape.length} dimensions)`, 'Train with `target_modules` on linear layers.', factor.name)
    }
    if (!isMergeable(factor.dtype)) {
      return refusal('factor-dtype', `The factor ${factor.name} is stored as ${factor.dtype}.`, { tensor: factor.name, expected: 'F32, F16 or BF16', found: factor.dtype, remedy: 'Save the adapter in float32, float16 or bfloat16.' })
    }
  }
  return null
}

function pairProblem(module: string, { kind, a, b }: Pair, rank: number): AdapterError | null {
  const present = a ?? b
  if (a === undefined || b === undefined) {
    const missing = FACTORS.find((factor) => factor.kind === kind && factor.side === (a === undefined ? 'a' : 'b'))
    return new AdapterError('unpaired-factor', `The adapter holds ${present?.name} without ${PREFIX}${module}${missing?.suffix}.`, present?.name ?? null)
  }
  for (const factor of [a, b]) {
    if (factor.shape.length !== 2 || factor.shape.some((size) => size === 0)) {
      return new AdapterError('factor-shape', `The factor ${factor.name} has the shape ${describeShape(factor.shape)}; a factor is a matrix.`, factor.name)
    }
  }
  if (a.shape[0] !== b.shape[1]) {
    return new AdapterError('rank-mismatch', `The factors of ${module} do not fit each other: A has the shape ${describeShape(a.shape)}, B ${describeShape(b.shape)}.`, a.name)
  }
  if (a.shape[0] !== rank) {
    return new AdapterError('rank-mismatch', `The factor ${a.name} has rank ${a.shape[0]}, but adapter_config.json gives ${module} rank ${rank}.`, a.name)
  }
  return null
}
