import { z } from 'zod'
import { sha256Hex, canonicalJson } from './derivation.ts'
import type { ManifestFile, ModelFacts } from './manifest.ts'
import { unkeepablePath } from './keepable-text.ts'
import { parseStrictJson } from './strict-json.ts'

/** Files that decide how text becomes token ids, wherever a tokenizer has them. */
export const TOKENIZER_FILES = [
  'tokenizer.json', 'tokenizer.model', 'vocab.json', 'vocab.txt', 'merges.txt', 'spiece.model', 'sentencepiece.bpe.model',
  'added_tokens.json', 'tekken.json',
] as const

/** JSON files of a model whose text `modelFacts` wants, each at most this long. */
export const FACT_FILES = ['config.json', 'tokenizer_config.json', 'chat_template.jinja'] as const
export const MAX_FACT_FILE_BYTES = 4 * 1024 * 1024

export class FactsError extends Error {
  readonly code = 'bad-config'
  readonly file: string

  constructor(file: string, message: string) {
    super(`${file}: ${message}`)
    this.name = 'FactsError'
    this.file = file
  }
}

export interface FactsInput {
  /** Text of config.json, or null where there is none. */
  readonly config: string | null
  /** Text of tokenizer_config.json, or null. */
  readonly tokenizerConfig?: string | null
  /** Text of chat_template.jinja, or null. */
  readonly chatTemplate?: string | null
  /** Every file of the version. */
  readonly files: readonly ManifestFile[]
  /** Name of every tensor of the version. */
  readonly tensorNames: readonly string[]
}

const count = z.number().int().nonnegative().nullish()
const textConfig = z.looseObject({
  model_type: z.string().max(200).nullish(),
  architectures: z.array(z.string().max(200)).max(100).nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  num_hidden_layers: count,
  n_layer: count,
  num_layers: count,
  vocab_size: count,
  quantization_config: z.looseObject({ quant_method: z.string().max(200).nullish() }).nullish(),
})
const modelConfig = textConfig.extend({ text_config: textConfig.nullish() })
const namedTemplates = z.array(z.object({ name: z.string(), template: z.string() })).max(100)
const tokenizerConfig = z.looseObject({ chat_template: z.union([z.string(), namedTemplates]).nullish() })

/** Last part of the name of the tensors that turn hidden states into logits, in the model families of transformers. */
const OUTPUT_HEADS = /(^|\.)(lm_head|embed_out|output_projection)\.weight$/
const GENERATIVE = /(ForCausalLM|LMHeadModel|ForConditionalGeneration)$/

/**
 * What compatibility needs to know of a model beyond its tensors. A nested `text_config` answers where the outer
 * config is silent. Throws FactsError for a file that is not what its name says.
 */
export async function modelFacts(input: FactsInput): Promise<ModelFacts> {
  const config = input.config === null ? {} : readJson('config.json', input.config, modelConfig)
  const text = 'text_config' in config ? config.text_config : null
  const architectures = config.architectures ?? text?.architectures ?? []
  const quantization = config.quantization_config ?? text?.quantization_config
  return {
    modelType: config.model_type ?? text?.model_type ?? null,
    architectures,
    tieWordEmbeddings: config.tie_word_embeddings ?? text?.tie_word_embeddings ?? tiesByOmission(architectures, input.tensorNames),
    quantization: quantization ? (quantization.quant_method ?? 'unknown') : null,
    layerCount: layerCount(config) ?? (text ? layerCount(text) : null),
    vocabularySize: config.vocab_size ?? text?.vocab_size ?? null,
    tokenizerDigest: await tokenizerDigest(input.files),
    chatTemplateDigest: await chatTemplateDigest(input),
  }
}

/** A config may leave out a value that is its class's default; a generative model without a head on disk is tied. */
function tiesByOmission(architectures: readonly string[], tensorNames: readonly string[]): boolean {
  return architectures.some((name) => GENERATIVE.test(name)) && !tensorNames.some((name) => OUTPUT_HEADS.test(name))
}

function layerCount(config: z.infer<typeof textConfig>): number | null {
  return config.num_hidden_layers ?? config.n_layer ?? config.num_layers ?? null
}

/** `sha256:…` over the names and etags of the files that decide the token ids, or null without any. */
async function tokenizerDigest(files: readonly ManifestFile[]): Promise<string | null> {
  const parts = files
    .filter(({ path }) => (TOKENIZER_FILES as readonly string[]).includes(path))
    .map(({ path, etag }) => ({ path, etag }))
    .sort((a, b) => (a.path < b.path ? -1 : 1))
  return parts.length === 0 ? null : `sha256:${await sha256Hex(canonicalJson(parts))}`
}

/** The template itself, so that moving it from tokenizer_config.json to its own file changes nothing. */
async function chatTemplateDigest(input: FactsInput): Promise<string | null> {
  const template = input.chatTemplate ?? inlineTemplate(input.tokenizerConfig ?? null)
  return template === null ? null : `sha256:${await sha256Hex(template)}`
}

function inlineTemplate(text: string | null): string | null {
  if (text === null) return null
  const template = readJson('tokenizer_config.json', text, tokenizerConfig).chat_template ?? null
  return template === null || typeof template === 'string' ? template : canonicalJson(template)
}

function readJson<T>(file: string, text: string, schema: z.ZodType<T>): T {
  if (text.length > MAX_FACT_FILE_BYTES) throw new FactsError(file, `it is longer than ${MAX_FACT_FILE_BYTES} characters.`)
  let value: unknown
  try {
    value = parseStrictJson(text)
  } catch (error) {
    throw new FactsError(file, `it is not acceptable JSON: ${error instanceof Error ? error.message : String(error)}.`)
  }
  const path = unkeepablePath(value)
  if (path !== null) throw new FactsError(file, `${path.join('.') || 'the whole'}: it holds the character U+0000 or half a surrogate pair.`)
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new FactsError(file, `${issue?.path.join('.') || 'the whole'}: ${issue?.message}.`)
}
