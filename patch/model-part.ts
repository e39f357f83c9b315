import { isVocabularyLayer } from './vocabulary-layers.ts'

/** Parts of a transformer that an analysis tells apart. */
export const MODEL_PARTS = ['attention', 'mlp', 'embeddings', 'other'] as const
export type ModelPart = (typeof MODEL_PARTS)[number]

/** Names of the modules that hold a whole part, in the model families of transformers. */
const BLOCKS: Readonly<Record<string, ModelPart>> = {
  ...named('attention', ['self_attn', 'attn', 'attention', 'self_attention', 'SelfAttention', 'EncDecAttention', 'encoder_attn', 'cross_attn', 'crossattention', 'linear_attn', 'mixer']),
  ...named('mlp', ['mlp', 'ffn', 'feed_forward', 'feedforward', 'DenseReluDense', 'block_sparse_moe', 'experts', 'shared_expert', 'shared_experts', 'moe']),
}

/** Names of single layers, for families that have no module around them. */
const LAYERS: Readonly<Record<string, ModelPart>> = {
  ...named('attention', ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'out_proj', 'qkv_proj', 'in_proj', 'query_key_value', 'query', 'key', 'value', 'c_attn', 'q_attn', 'wq', 'wk', 'wv', 'wo', 'Wqkv', 'q', 'k', 'v', 'o']),
  ...named('mlp', ['gate_proj', 'up_proj', 'down_proj', 'gate_up_proj', 'fc1', 'fc2', 'fc_in', 'fc_out', 'c_fc', 'dense_h_to_4h', 'dense_4h_to_h', 'intermediate', 'w1', 'w2', 'w3', 'wi', 'wi_0', 'wi_1']),
}

/** The part that a tensor belongs to, by its name: the innermost module that says so, or the layer's own name. */
export function modelPart(tensor: string): ModelPart {
  const segments = tensor.replace(/\.(weight|bias)$/, '').split('.')
  const layer = segments.at(-1) ?? ''
  if (isVocabularyLayer(layer)) return 'embeddings'
  const block = segments.slice(0, -1).findLast((segment) => Object.hasOwn(BLOCKS, segment)) ?? (Object.hasOwn(BLOCKS, layer) ? layer : undefined)
  if (block !== undefined) return BLOCKS[block]!
  return Object.hasOwn(LAYERS, layer) ? LAYERS[layer]! : 'other'
}

function named(part: ModelPart, names: readonly string[]): Record<string, ModelPart> {
  return Object.fromEntries(names.map((name) => [name, part]))
}
