import type { AdapterTensor } from './adapter.ts'
import type { ManifestTensor, ModelFacts, ModelManifest, PatchManifest } from './manifest.ts'

/** Hand-made manifests for the tests of this folder; really trained ones are in tests/fixtures. */

export interface SampleModel {
  readonly layers?: number
  readonly hidden?: number
  readonly vocabulary?: number
  readonly prefix?: string
  readonly dtype?: ManifestTensor['dtype']
  readonly facts?: Partial<ModelFacts>
  /** Modules of each layer, with the shape of their weight. */
  readonly modules?: Readonly<Record<string, readonly [number, number]>>
}

export const SAMPLE_FACTS: ModelFacts = {
  modelType: 'llama', architectures: ['LlamaForCausalLM'], tieWordEmbeddings: false, quantization: null, layerCount: 2,
  vocabularySize: 32, tokenizerDigest: sampleDigest('tokenizer'), chatTemplateDigest: null,
}

/** A Llama-shaped manifest whose digests differ from tensor to tensor. */
export function sampleModel(options: SampleModel = {}): ModelManifest {
  const { layers = 2, hidden = 8, vocabulary = 32, prefix = 'model.', dtype = 'BF16' } = options
  const modules = options.modules ?? { 'self_attn.q_proj': [hidden, hidden], 'self_attn.v_proj': [hidden / 2, hidden], 'mlp.up_proj': [hidden * 2, hidden] }
  const shapes: [string, readonly number[]][] = [[`${prefix}embed_tokens.weight`, [vocabulary, hidden]]]
  for (let layer = 0; layer < layers; layer += 1) {
    for (const [module, shape] of Object.entries(modules)) shapes.push([`${prefix}layers.${layer}.${module}.weight`, shape])
  }
  shapes.push([`${prefix}norm.weight`, [hidden]], ['lm_head.weight', [vocabulary, hidden]])
  const facts = { ...SAMPLE_FACTS, layerCount: layers, vocabularySize: vocabulary, ...options.facts }
  return sampleManifest(shapes, dtype, facts)
}

/** A manifest of one file, model.safetensors, that holds tensors of these shapes end to end. */
export function sampleManifest(shapes: readonly (readonly [string, readonly number[]])[], dtype: 'BF16' | 'F32' | ManifestTensor['dtype'] = 'BF16', facts: ModelFacts = SAMPLE_FACTS): ModelManifest {
  const width = dtype === 'F32' ? 4 : dtype === 'BF16' || dtype === 'F16' ? 2 : 1
  let offset = 1024
  const tensors = shapes.map(([name, shape]): ManifestTensor => {
    const length = shape.reduce((product, size) => product * size, width)
    const tensor = { name, dtype, shape, file: 'model.safetensors', offset, length, digest: sampleDigest(name) }
    offset += length
    return tensor
  })
  return { format: 'portllm.model/1', files: [{ path: 'model.safetensors', size: offset, etag: sampleDigest('file').slice(7) }], tensors, facts }
}

/** `sha256:` and 64 hex digits that stand for `text`. */
export function sampleDigest(text: string): string {
  let state = 0x811c9dc5
  for (const unit of text) state = Math.imul(state ^ (unit.codePointAt(0) ?? 0), 0x01000193) >>> 0
  return `sha256:${state.toString(16).padStart(8, '0').repeat(8)}`
}

/** The text of an adapter_config.json as PEFT writes it, with these keys changed. */
export function sampleConfig(changes: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({
    alora_invocation_tokens: null, alpha_pattern: {}, arrow_config: null, auto_mapping: null, base_model_name_or_path: 'base', bias: 'none',
    corda_config: null, ensure_weight_tying: false, eva_config: null, exclude_modules: null, fan_in_fan_out: false, inference_mode: true,
    init_lora_weights: true, kasa_config: null, layer_replication: null, layers_pattern: null, layers_to_transform: null, loftq_config: {},
    lora_alpha: 8, lora_bias: false, lora_dropout: 0.0, lora_ga_config: null, megatron_config: null, megatron_core: 'megatron.core',
    modules_to_save: null, monteclora_config: null, peft_type: 'LORA', peft_version: '0.21.0', qalora_group_size: 16, r: 4, rank_pattern: {},
    revision: null, target_modules: ['q_proj', 'v_proj'], target_parameters: null, task_type: 'CAUSAL_LM', trainable_token_indices: null,
    use_bdlora: null, use_dora: false, use_qalora: false, use_rslora: false, velora_config: null, ...changes,
  })
}

/** The two factors of a linear module, as PEFT names them. */
export function sampleFactors(module: string, out: number, input: number, rank = 4): AdapterTensor[] {
  return [
    { name: `base_model.model.${module}.lora_A.weight`, dtype: 'F32', shape: [rank, input] },
    { name: `base_model.model.${module}.lora_B.weight`, dtype: 'F32', shape: [out, rank] },
  ]
}

/** The factors of q_proj and v_proj of a sample model's layers. */
export function sampleTensors(layers = 2, hidden = 8, prefix = 'model.', rank = 4): AdapterTensor[] {
  return Array.from({ length: layers }, (_, layer) => [
    ...sampleFactors(`${prefix}layers.${layer}.self_attn.q_proj`, hidden, hidden, rank),
    ...sampleFactors(`${prefix}layers.${layer}.self_attn.v_proj`, hidden / 2, hidden, rank),
  ]).flat()
}

export function samplePatch(config: string, tensors: readonly AdapterTensor[]): PatchManifest {
  let offset = 0
  return {
    format: 'portllm.patch/1', files: [], adapterConfig: config,
    tensors: tensors.map((tensor) => {
      const length = tensor.shape.reduce((product, size) => product * size, 4)
      offset += length
      return { digest: sampleDigest(tensor.name), ...tensor, file: 'adapter_model.safetensors', offset: offset - length, length }
    }),
  }
}
