import { expect, it } from 'vitest'
import { modelPart } from './model-part.ts'

it.each([
  ['model.layers.3.self_attn.q_proj.weight', 'attention'], // Llama, Mistral, Gemma, Qwen
  ['model.layers.3.mlp.down_proj.weight', 'mlp'],
  ['model.layers.3.self_attn.dense.weight', 'attention'], // Phi
  ['model.layers.3.mlp.fc1.weight', 'mlp'],
  ['h.3.attn.c_proj.weight', 'attention'], // GPT-2 has a c_proj on both sides
  ['h.3.mlp.c_proj.weight', 'mlp'],
  ['transformer.h.3.self_attention.query_key_value.weight', 'attention'], // Falcon
  ['transformer.h.3.mlp.dense_h_to_4h.weight', 'mlp'],
  ['gpt_neox.layers.3.attention.dense.weight', 'attention'],
  ['model.layers.3.block_sparse_moe.experts.5.w2.weight', 'mlp'], // Mixtral
  ['model.layers.3.mlp.experts.gate_up_proj', 'mlp'],
  ['model.layers.3.block_sparse_moe.gate.weight', 'mlp'],
  ['bert.encoder.layer.3.attention.self.query.weight', 'attention'],
  ['encoder.block.3.layer.0.SelfAttention.q.weight', 'attention'], // T5
  ['encoder.block.3.layer.1.DenseReluDense.wi_0.weight', 'mlp'],
  ['model.decoder.layers.3.fc2.weight', 'mlp'], // OPT has no module around its MLP
  ['model.decoder.layers.3.self_attn.out_proj.bias', 'attention'],
  ['vision.blocks.3.attn.in_proj_weight', 'attention'],
  ['model.embed_tokens.weight', 'embeddings'],
  ['lm_head.weight', 'embeddings'],
  ['wte.weight', 'embeddings'],
  ['model.layers.3.input_layernorm.weight', 'other'],
  ['conv1.weight', 'other'],
])('%s is of the part %s', (tensor, part) => expect(modelPart(tensor)).toBe(part))
