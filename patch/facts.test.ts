import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { modelFacts } from './facts.ts'
import type { FactsInput } from './facts.ts'
import type { ModelFacts } from './manifest.ts'

function facts(config: object | null, more: Partial<FactsInput> = {}): Promise<ModelFacts> {
  return modelFacts({ config: config === null ? null : JSON.stringify(config), files: [], tensorNames: [], ...more })
}

function digest(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}

describe('config.json', () => {
  it('gives type, layers, vocabulary and ties', async () => {
    expect(await facts({ model_type: 'llama', architectures: ['LlamaForCausalLM'], num_hidden_layers: 22, vocab_size: 32000, tie_word_embeddings: false })).toEqual({
      modelType: 'llama', architectures: ['LlamaForCausalLM'], tieWordEmbeddings: false, quantization: null, layerCount: 22, vocabularySize: 32000, tokenizerDigest: null, chatTemplateDigest: null,
    })
  })

  it('asks text_config where it is silent itself', async () => {
    expect(await facts({ model_type: 'gemma3', text_config: { model_type: 'gemma3_text', num_hidden_layers: 4, vocab_size: 9, tie_word_embeddings: true } })).toMatchObject({ modelType: 'gemma3', layerCount: 4, vocabularySize: 9, tieWordEmbeddings: true })
  })

  it('knows GPT-2\'s name for the layers, and a model without a config', async () => {
    expect(await facts({ n_layer: 12 })).toMatchObject({ layerCount: 12, modelType: null })
    expect(await facts(null)).toMatchObject({ modelType: null, architectures: [], tieWordEmbeddings: false, layerCount: null })
  })

  it('takes a generative model without a head on disk for tied where the config does not say', async () => {
    const config = { architectures: ['Gemma2ForCausalLM'] }
    expect((await facts(config, { tensorNames: ['model.embed_tokens.weight'] })).tieWordEmbeddings).toBe(true)
    expect((await facts(config, { tensorNames: ['model.embed_tokens.weight', 'lm_head.weight'] })).tieWordEmbeddings).toBe(false)
    expect((await facts({ architectures: ['BertModel'] })).tieWordEmbeddings).toBe(false)
    expect((await facts({ ...config, tie_word_embeddings: false })).tieWordEmbeddings).toBe(false)
  })

  it('names the quantization', async () => {
    expect((await facts({ quantization_config: { quant_method: 'gptq', bits: 4 } })).quantization).toBe('gptq')
    expect((await facts({ quantization_config: { bits: 4 } })).quantization).toBe('unknown')
    expect((await facts({ quantization_config: null })).quantization).toBeNull()
  })

  it.each(['{', '[]', '{"model_type": 3}', '{"vocab_size": -1}', '{"vocab_size": 1.5}', '{"architectures": "x"}', '{"model_type":"a","model_type":"b"}'])('%s is refused', async (config) => {
    await expect(modelFacts({ config, files: [], tensorNames: [] })).rejects.toThrow(expect.objectContaining({ name: 'FactsError', file: 'config.json' }))
  })
})

describe('tokenizer and chat template', () => {
  const files = ['tokenizer.json', 'tokenizer_config.json', 'model.safetensors', 'sub/tokenizer.json'].map((path) => ({ path, size: 1, etag: path }))

  it('digests the tokenizer\'s files, whatever their order and whatever else there is', async () => {
    const one = (await facts({}, { files })).tokenizerDigest
    expect(one).toBe(digest('[{"etag":"tokenizer.json","path":"tokenizer.json"}]'))
    expect((await facts({}, { files: files.slice(0, 1) })).tokenizerDigest).toBe(one)
    expect((await facts({}, { files: [{ path: 'tokenizer.json', size: 1, etag: 'other' }] })).tokenizerDigest).not.toBe(one)
    expect((await facts({}, { files: files.slice(1) })).tokenizerDigest).toBeNull()
  })

  it('digests the template itself, wherever it lies', async () => {
    const inline = await facts({}, { tokenizerConfig: JSON.stringify({ chat_template: '{{ x }}' }) })
    expect(inline.chatTemplateDigest).toBe(digest('{{ x }}'))
    expect((await facts({}, { chatTemplate: '{{ x }}', tokenizerConfig: '{}' })).chatTemplateDigest).toBe(inline.chatTemplateDigest)
    expect((await facts({}, { tokenizerConfig: '{}' })).chatTemplateDigest).toBeNull()
    expect((await facts({}, { tokenizerConfig: JSON.stringify({ chat_template: [{ name: 'default', template: 'x' }] }) })).chatTemplateDigest).toMatch(/^sha256:/)
    const deep = `{"chat_template":${'['.repeat(200_000)}${']'.repeat(200_000)}}`
    await expect(facts({}, { tokenizerConfig: deep })).rejects.toThrow(expect.objectContaining({ name: 'FactsError' }))
    await expect(facts({}, { tokenizerConfig: '{' })).rejects.toThrow(expect.objectContaining({ file: 'tokenizer_config.json' }))
  })
})
