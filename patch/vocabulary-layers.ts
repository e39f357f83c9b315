/** Last segment of the modules that turn token ids into hidden states, in the model families of transformers. */
const INPUT_EMBEDDINGS: ReadonlySet<string> = new Set(['embed_tokens', 'wte', 'word_embeddings', 'embed_in', 'tok_embeddings', 'shared', 'tokens_embed'])
/** Last segment of those that turn hidden states into logits. */
const OUTPUT_HEADS: ReadonlySet<string> = new Set(['lm_head', 'embed_out', 'output_projection'])

/** True for the layers between token ids and hidden states, at either end of the model: one row for each token. */
export function isVocabularyLayer(module: string): boolean {
  return isInputEmbedding(module) || isOutputHead(module)
}

export function isInputEmbedding(module: string): boolean {
  return INPUT_EMBEDDINGS.has(lastSegment(module))
}

export function isOutputHead(module: string): boolean {
  return OUTPUT_HEADS.has(lastSegment(module))
}

function lastSegment(module: string): string {
  return module.slice(module.lastIndexOf('.') + 1)
}
