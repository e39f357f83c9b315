import type { AdapterModule } from './adapter.ts'

/** Last segment of the modules that hold one row for each token, in the model families of transformers. */
export const VOCABULARY_LAYERS: ReadonlySet<string> = new Set([
  'embed_tokens', 'wte', 'word_embeddings', 'embed_in', 'tok_embeddings', 'shared', 'tokens_embed', 'lm_head', 'embed_out', 'output_projection',
])

/** True for the layers between token ids and hidden states, at either end of the model. */
export function isVocabularyLayer({ module, kind }: AdapterModule): boolean {
  return kind === 'embedding' || VOCABULARY_LAYERS.has(module.slice(module.lastIndexOf('.') + 1))
}
