/**
 * Where transformers names a tensor in memory, which is what an adapter knows, otherwise than on disk (transformers
 * 5.18, conversion_mapping.py). Only renamings; fused experts are in expert-tensors.ts.
 */
const RENAMINGS: readonly { readonly types: readonly string[]; readonly names: readonly (readonly [RegExp, string])[] }[] = [
  { types: ['mixtral', 'phimoe', 'minimax', 'minimax_m2', 'minimax_m3_vl', 'kimi_linear'], names: [[/\.mlp\./, '.block_sparse_moe.']] },
  { types: ['granitemoe', 'granitemoeshared', 'granitemoehybrid'], names: [[/\.block_sparse_moe\.router\.weight$/, '.block_sparse_moe.router.layer.weight']] },
  { types: ['gpt_neox'], names: [[/^lm_head\./, 'embed_out.']] },
  {
    types: ['llava', 'aria', 'paligemma', 'aya_vision', 'got_ocr2', 'gemma3', 'internvl', 'vipllava', 'mistral3', 'llava_next', 'llava_next_video', 'llava_onevision', 'mllama'],
    names: [
      [/^model\.language_model\./, 'language_model.model.'], [/^lm_head\./, 'language_model.lm_head.'], [/^model\.vision_tower\./, 'vision_tower.'],
      [/^model\.vision_model\./, 'vision_model.'], [/^model\.multi_modal_projector\./, 'multi_modal_projector.'],
    ],
  },
  { types: ['qwen2_vl', 'qwen2_5_vl'], names: [[/^model\.language_model\./, 'model.'], [/^model\.visual\./, 'visual.']] },
]

/** Other names that a tensor may have on disk in a model of this type. */
export function diskNames(modelType: string | null, name: string): string[] {
  return RENAMINGS.filter(({ types }) => modelType !== null && types.includes(modelType)).flatMap(({ names }) =>
    names.filter(([pattern]) => pattern.test(name)).map(([pattern, replacement]) => name.replace(pattern, replacement)),
  )
}
