import { z } from 'zod'
import { parseStrictJson } from './strict-json.ts'

/** Longest adapter_config.json that is read; a pattern for each of 20,000 modules fits. */
export const MAX_CONFIG_LENGTH = 1024 * 1024
/** Most layers whose tokens trainable_token_indices names; a model has two. */
const MAX_TOKEN_LAYERS = 100
/** Largest rank that is read. */
export const MAX_RANK = 65_536

export const ADAPTER_ERRORS = ['invalid-json', 'invalid-config', 'unpaired-factor', 'factor-shape', 'rank-mismatch', 'duplicate-tensor'] as const
export type AdapterErrorCode = (typeof ADAPTER_ERRORS)[number]

/** A file that is not a LoRA adapter, or contradicts itself. */
export class AdapterError extends Error {
  readonly code: AdapterErrorCode
  /** Name of the adapter tensor or key of the config concerned, where there is one. */
  readonly where: string | null

  constructor(code: AdapterErrorCode, message: string, where: string | null = null) {
    super(message)
    this.name = 'AdapterError'
    this.code = code
    this.where = where
  }
}

const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? null)
const flag = z.boolean().nullish().transform((value) => value ?? false)
const name = z.string().min(1).max(1000)
const names = z.union([z.string().max(10_000), z.array(name).max(100_000)])
const tokens = z.array(z.number().int()).max(1_000_000)
const rank = z.number().int().min(1).max(MAX_RANK)
const alpha = z.number().refine((value) => value !== 0, 'an alpha of 0 would make the patch do nothing')

/**
 * The keys of PEFT 0.21's LoraConfig that its save_pretrained writes. Those typed `unknown` are only asked whether
 * they are set (adapter-features.ts).
 */
const loraConfig = z.looseObject({
  peft_type: z.literal('LORA'),
  r: rank,
  lora_alpha: alpha,
  use_rslora: flag,
  rank_pattern: optional(z.record(z.string(), rank)),
  alpha_pattern: optional(z.record(z.string(), alpha)),
  fan_in_fan_out: flag,
  init_lora_weights: z.union([z.boolean(), z.string().max(100)]).nullish().transform((value) => value ?? true),
  target_modules: optional(names),
  exclude_modules: optional(names),
  layers_to_transform: optional(z.union([z.number().int(), z.array(z.number().int()).max(100_000)])),
  layers_pattern: optional(z.union([z.string().max(1000), z.array(name).max(1000)])),
  bias: z.enum(['none', 'all', 'lora_only']).nullish().transform((value) => value ?? 'none'),
  lora_bias: flag,
  use_dora: flag,
  use_qalora: flag,
  ensure_weight_tying: flag,
  modules_to_save: optional(z.array(name).max(1000)),
  target_parameters: optional(z.array(name).max(1000)),
  trainable_token_indices: optional(z.union([tokens, z.record(z.string(), tokens).refine((layers) => Object.keys(layers).length <= MAX_TOKEN_LAYERS, `at most ${MAX_TOKEN_LAYERS} layers are read`)])),
  layer_replication: z.unknown().optional(),
  alora_invocation_tokens: z.unknown().optional(),
  arrow_config: z.unknown().optional(),
  kasa_config: z.unknown().optional(),
  monteclora_config: z.unknown().optional(),
  velora_config: z.unknown().optional(),
  use_bdlora: z.unknown().optional(),
  megatron_config: z.unknown().optional(),
  corda_config: z.unknown().optional(),
  lora_ga_config: z.unknown().optional(),
})

/** Keys that say nothing about the merged weights. */
const IRRELEVANT_KEYS = [
  'auto_mapping', 'base_model_name_or_path', 'eva_config', 'inference_mode', 'loftq_config', 'lora_dropout', 'megatron_core',
  'peft_version', 'qalora_group_size', 'revision', 'runtime_config', 'task_type',
]
const KNOWN_KEYS: ReadonlySet<string> = new Set([...Object.keys(loraConfig.shape), ...IRRELEVANT_KEYS])

export type LoraConfig = z.infer<typeof loraConfig>

export interface AdapterConfig {
  /** `peft_type` as written; `config` is null unless it is LORA. */
  readonly peftType: string
  readonly config: LoraConfig | null
  /** Keys that PEFT 0.21 does not know and whose value is not null. */
  readonly unknownKeys: readonly string[]
}

/** Reads the text of adapter_config.json. Throws AdapterError. */
export function readAdapterConfig(text: string): AdapterConfig {
  if (text.length > MAX_CONFIG_LENGTH) {
    throw new AdapterError('invalid-config', `adapter_config.json has ${text.length} characters; at most ${MAX_CONFIG_LENGTH} are read.`)
  }
  const raw = parseConfigJson(text)
  const { peft_type: peftType } = raw
  if (typeof peftType !== 'string' || peftType.length > 100) {
    throw new AdapterError('invalid-config', 'adapter_config.json has no `peft_type`: is it the file that PEFT wrote beside adapter_model.safetensors?', 'peft_type')
  }
  if (peftType !== 'LORA') return { peftType, config: null, unknownKeys: [] }
  const parsed = loraConfig.safeParse(raw)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    const where = issue?.path.join('.').slice(0, 200) ?? ''
    throw new AdapterError('invalid-config', `adapter_config.json: ${where || 'the whole'}: ${issue?.message ?? 'not acceptable'}.`, where || null)
  }
  const unknownKeys = Object.keys(raw).filter((key) => !KNOWN_KEYS.has(key) && raw[key] !== null)
  return { peftType, config: parsed.data, unknownKeys }
}

function parseConfigJson(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = parseStrictJson(text)
  } catch (error) {
    const problem = error instanceof RangeError ? 'it is nested too deeply' : error instanceof Error ? error.message : String(error)
    throw new AdapterError('invalid-json', `adapter_config.json is not acceptable JSON: ${problem}.`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AdapterError('invalid-config', 'adapter_config.json is not a JSON object.')
  }
  // zod drops keys of this name without a word.
  for (const object of [value, ...Object.values(value)]) {
    if (typeof object === 'object' && object !== null && Object.hasOwn(object, '__proto__')) {
      throw new AdapterError('invalid-config', 'adapter_config.json holds the key "__proto__".', '__proto__')
    }
  }
  return value as Record<string, unknown>
}
