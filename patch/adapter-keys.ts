/**
 * What a tensor of adapter_model.safetensors is, by its name (PEFT 0.21, without the adapter's name). A module's path
 * is the one it has in the model; the `base_layer` segments that PEFT's wrappers add are told apart from it.
 */
export type AdapterKey =
  | (WrappedModule & { readonly kind: 'factor'; readonly side: 'a' | 'b'; readonly isEmbedding: boolean })
  /** DoRA's magnitudes. */
  | (WrappedModule & { readonly kind: 'magnitude' })
  /** `lora_bias`: the bias of the factor B. */
  | (WrappedModule & { readonly kind: 'lora-bias' })
  /** Rows of an embedding, in the order of `trainable_token_indices`. */
  | { readonly kind: 'token-rows'; readonly module: string }
  /** The weight of a layer that PEFT wraps, saved as it was: a copy of an embedding. */
  | { readonly kind: 'embedding-copy'; readonly name: string }
  /** A full value of the model's tensor of this name: of `modules_to_save`, or a bias. */
  | { readonly kind: 'value'; readonly name: string }
  /** The same bias once more, which `bias: all` saves under the wrapper of `modules_to_save`; or the frozen original. */
  | { readonly kind: 'bias-again'; readonly name: string; readonly of: 'copy' | 'original' }

export interface WrappedModule {
  readonly module: string
  /** How many wrappers of bare parameters (`target_parameters`) enclose this one. */
  readonly depth: number
  /** Set for the output projection within a torch.nn.MultiheadAttention, which `module` then is. */
  readonly isOutProjection: boolean
}

const PREFIX = 'base_model.model.'
const SEGMENTS = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/
/** What PEFT's wrappers name their parts; a path that still holds one is not understood. */
const RESERVED = /(^|\.)(base_layer|lora_[A-Za-z]\w*|modules_to_save|original_module|token_adapter|trainable_tokens_(delta|original))(\.|$)/

const FACTORS = [
  ['.lora_A.weight', { kind: 'factor', side: 'a', isEmbedding: false }],
  ['.lora_B.weight', { kind: 'factor', side: 'b', isEmbedding: false }],
  ['.lora_embedding_A', { kind: 'factor', side: 'a', isEmbedding: true }],
  ['.lora_embedding_B', { kind: 'factor', side: 'b', isEmbedding: true }],
  ['.lora_magnitude_vector', { kind: 'magnitude' }],
  ['.lora_magnitude_vector.weight', { kind: 'magnitude' }],
  ['.lora_B.bias', { kind: 'lora-bias' }],
] as const

/** Null for a name that PEFT's LoRA does not write. */
export function readAdapterKey(tensor: string): AdapterKey | null {
  if (!tensor.startsWith(PREFIX)) return null
  const name = tensor.slice(PREFIX.length)
  if (!SEGMENTS.test(name)) return null
  for (const [suffix, key] of FACTORS) {
    if (!name.endsWith(suffix)) continue
    const module = readWrappedModule(name.slice(0, -suffix.length))
    return module && { ...key, ...module }
  }
  return readValueKey(name)
}

function readWrappedModule(path: string): WrappedModule | null {
  const isOutProjection = path.endsWith('.base_layer.out_proj')
  const outer = isOutProjection ? path.slice(0, -'.base_layer.out_proj'.length) : path
  const module = outer.replace(/(\.base_layer)+$/, '')
  const depth = (outer.length - module.length) / '.base_layer'.length
  return RESERVED.test(module) || (isOutProjection && depth > 0) ? null : { module, depth, isOutProjection }
}

function readValueKey(name: string): AdapterKey | null {
  const ending = /^(.*?)\.(token_adapter\.trainable_tokens_delta|(?:token_adapter\.)?base_layer\.weight|base_layer\.bias|(?:modules_to_save|original_module)\.bias)$/.exec(name)
  if (ending === null) return RESERVED.test(name) ? null : { kind: 'value', name }
  const [, path, end] = ending as unknown as [string, string, string]
  const module = path.replace(/\.base_layer\.out_proj$/, '.out_proj')
  if (RESERVED.test(module)) return null
  switch (end) {
    case 'token_adapter.trainable_tokens_delta': return { kind: 'token-rows', module }
    case 'base_layer.bias': return { kind: 'value', name: `${module}.bias` }
    case 'modules_to_save.bias': return { kind: 'bias-again', name: `${module}.bias`, of: 'copy' }
    case 'original_module.bias': return { kind: 'bias-again', name: `${module}.bias`, of: 'original' }
    default: return { kind: 'embedding-copy', name: `${module}.weight` }
  }
}
