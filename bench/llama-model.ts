import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdir, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { MergeableDtype } from '../patch/dtype.ts'
import { writeHeader } from '../patch/safetensors.ts'

/** Dimensions of a Llama, by the names of its config.json. */
export interface LlamaShape {
  readonly hidden: number
  readonly layers: number
  readonly heads: number
  readonly keyValueHeads: number
  readonly intermediate: number
  readonly vocabulary: number
  readonly shards: number
}

export const LLAMA_SHAPES = {
  /** The bench model of targets.md: 2.2 GB in bf16. */
  '1.1b': { hidden: 2048, layers: 22, heads: 32, keyValueHeads: 4, intermediate: 5632, vocabulary: 32000, shards: 3 },
  /** The shape of Llama-2-7B and Mistral's siblings: 13.5 GB; write it sparse. */
  '7b': { hidden: 4096, layers: 32, heads: 32, keyValueHeads: 32, intermediate: 11008, vocabulary: 32000, shards: 3 },
  /** For tests: 0.4 MB. */
  tiny: { hidden: 64, layers: 2, heads: 4, keyValueHeads: 2, intermediate: 176, vocabulary: 512, shards: 3 },
} as const satisfies Record<string, LlamaShape>

export interface Tensor {
  readonly name: string
  readonly shape: readonly number[]
}

/** All tensors in the order in which transformers writes them. */
export function llamaTensors(shape: LlamaShape): Tensor[] {
  const { hidden, intermediate, vocabulary } = shape
  const keyValue = (hidden / shape.heads) * shape.keyValueHeads
  const layers = Array.from({ length: shape.layers }, (_, layer) =>
    Object.entries({
      'input_layernorm': [hidden],
      'mlp.down_proj': [hidden, intermediate],
      'mlp.gate_proj': [intermediate, hidden],
      'mlp.up_proj': [intermediate, hidden],
      'post_attention_layernorm': [hidden],
      'self_attn.k_proj': [keyValue, hidden],
      'self_attn.o_proj': [hidden, hidden],
      'self_attn.q_proj': [hidden, hidden],
      'self_attn.v_proj': [keyValue, hidden],
    }).map(([name, dimensions]) => ({ name: `model.layers.${layer}.${name}.weight`, shape: dimensions })),
  )
  return [{ name: 'model.embed_tokens.weight', shape: [vocabulary, hidden] }, ...layers.flat(), { name: 'model.norm.weight', shape: [hidden] }, { name: 'lm_head.weight', shape: [vocabulary, hidden] }]
}

export interface LlamaModelOptions {
  /** Another seed is another model of the same shape. */
  readonly seed?: number
  /** Only headers; the data are holes, which read as zeros and take no space on disk. */
  readonly sparse?: boolean
}

/**
 * Writes a Llama model folder as transformers does (bf16 shards, index, config.json), with weights that look
 * real: σ = 0.02, norms at 1, all finite. Values come from one pool of normal numbers, so gigabytes take seconds.
 */
export async function writeLlamaModel(folder: string, shape: LlamaShape, { seed = 1, sparse = false }: LlamaModelOptions = {}): Promise<void> {
  await mkdir(folder, { recursive: true })
  const tensors = llamaTensors(shape)
  const total = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0)
  const shards: Tensor[][] = [[]]
  let filled = 0
  for (const tensor of tensors) {
    if (filled >= (total * shards.length) / shape.shards) shards.push([])
    shards.at(-1)!.push(tensor)
    filled += bytesOf(tensor)
  }
  const pool = normalPool(seed, 0.02)
  const weightMap: Record<string, string> = {}
  for (const [index, members] of shards.entries()) {
    const file = shards.length === 1 ? 'model.safetensors' : `model-${pad(index + 1)}-of-${pad(shards.length)}.safetensors`
    for (const { name } of members) weightMap[name] = file
    const header = writeHeader(members.map((tensor) => ({ ...tensor, dtype: 'BF16' as const })), { format: 'pt' })
    if (sparse) {
      const handle = await open(join(folder, file), 'w')
      await handle.write(header)
      await handle.truncate(header.byteLength + members.reduce((sum, tensor) => sum + bytesOf(tensor), 0))
      await handle.close()
    } else {
      await writeStream(join(folder, file), header, members.map((tensor) => [bytesOf(tensor), tensor.shape.length === 1 ? pool.ones : pool.take]))
    }
  }
  if (shards.length > 1) {
    await writeFile(join(folder, 'model.safetensors.index.json'), `${JSON.stringify({ metadata: { total_parameters: total / 2, total_size: total }, weight_map: weightMap }, null, 2)}\n`)
  }
  await writeFile(join(folder, 'config.json'), `${JSON.stringify(llamaConfig(shape), null, 2)}\n`)
}

export interface LoraOptions {
  readonly rank: number
  readonly alpha: number
  /** Names of linears, such as `q_proj`. */
  readonly targets: readonly string[]
  readonly seed?: number
  readonly dtype?: MergeableDtype
  /** Deviation of the factors' elements. */
  readonly sigma?: number
  /** Only the first so many layers. */
  readonly layers?: number
}

export const ALL_LINEARS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const

/** Writes a LoRA adapter folder as PEFT 0.21 does, for a model of `shape`; both factors are non-zero. */
export async function writeLlamaAdapter(folder: string, shape: LlamaShape, options: LoraOptions): Promise<void> {
  const { rank, alpha, targets, seed = 7, dtype = 'F32', sigma = 0.02, layers = shape.layers } = options
  await mkdir(folder, { recursive: true })
  const linears = llamaTensors({ ...shape, layers }).filter(({ name }) => targets.some((target) => name.endsWith(`.${target}.weight`)))
  const tensors = linears
    .flatMap(({ name, shape: [rows, cols] }) => {
      const module = `base_model.model.${name.slice(0, -'.weight'.length)}`
      return [
        { name: `${module}.lora_A.weight`, shape: [rank, cols!], dtype },
        { name: `${module}.lora_B.weight`, shape: [rows!, rank], dtype },
      ]
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  const pool = normalPool(seed, sigma, dtype)
  const width = dtype === 'F32' ? 4 : 2
  const header = writeHeader(tensors, { format: 'pt' })
  await writeStream(join(folder, 'adapter_model.safetensors'), header, tensors.map(({ shape: [a, b] }) => [a! * b! * width, pool.take]))
  await writeFile(join(folder, 'adapter_config.json'), `${JSON.stringify(loraConfig(rank, alpha, targets), null, 2)}\n`)
}

function bytesOf(tensor: Tensor): number {
  return 2 * tensor.shape.reduce((product, size) => product * size, 1)
}

function pad(number: number): string {
  return String(number).padStart(5, '0')
}

type Source = (bytes: number) => Iterable<Uint8Array>

async function writeStream(path: string, header: Uint8Array, parts: readonly (readonly [number, Source])[]): Promise<void> {
  const stream = createWriteStream(path, { highWaterMark: 8 << 20 })
  stream.write(header)
  for (const [bytes, source] of parts) {
    for (const chunk of source(bytes)) {
      if (!stream.write(chunk)) await once(stream, 'drain')
    }
  }
  stream.end()
  await once(stream, 'close')
}

const POOL_ELEMENTS = 1 << 20

/** Normal numbers of deviation `sigma`, handed out in runs that start at changing places of one pool. */
function normalPool(seed: number, sigma: number, dtype: MergeableDtype = 'BF16'): { take: Source; ones: Source } {
  let state = (seed * 2654435761) >>> 0 || 1
  const uniform = () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32 + 2 ** -33
  }
  const values = new Float32Array(POOL_ELEMENTS)
  for (let i = 0; i < POOL_ELEMENTS; i += 2) {
    const radius = sigma * Math.sqrt(-2 * Math.log(uniform()))
    const angle = 2 * Math.PI * uniform()
    values[i] = radius * Math.cos(angle)
    values[i + 1] = radius * Math.sin(angle)
  }
  const pool = dtype === 'F32' ? new Uint8Array(values.buffer) : toHalf(values, dtype)
  const one = dtype === 'F32' ? new Uint8Array(Float32Array.of(1).buffer) : toHalf(Float32Array.of(1), dtype)
  const width = one.byteLength
  return {
    *take(bytes) {
      while (bytes > 0) {
        const start = Math.floor(uniform() * (POOL_ELEMENTS / 2)) * width
        const chunk = pool.subarray(start, Math.min(pool.byteLength, start + bytes))
        bytes -= chunk.byteLength
        yield chunk
      }
    },
    *ones(bytes) {
      yield Buffer.alloc(bytes, one)
    },
  }
}

/** Truncates to bf16, or rounds to f16: any stored value does for made-up weights. */
function toHalf(values: Float32Array, dtype: 'F16' | 'BF16'): Uint8Array {
  if (dtype === 'BF16') {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
    return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer)
  }
  const steps = Uint16Array.from(values, (value) => {
    const magnitude = Math.abs(value)
    const exponent = Math.max(-14, Math.floor(Math.log2(magnitude || 1)))
    const scaled = Math.round(magnitude * 2 ** (10 - exponent))
    return (value < 0 ? 0x8000 : 0) | (((exponent + 14) << 10) + scaled)
  })
  return new Uint8Array(steps.buffer)
}

function llamaConfig(shape: LlamaShape) {
  return {
    architectures: ['LlamaForCausalLM'], attention_bias: false, attention_dropout: 0.0, bos_token_id: 1, dtype: 'bfloat16', eos_token_id: 2,
    head_dim: shape.hidden / shape.heads, hidden_act: 'silu', hidden_size: shape.hidden, initializer_range: 0.02, intermediate_size: shape.intermediate,
    max_position_embeddings: 2048, mlp_bias: false, model_type: 'llama', num_attention_heads: shape.heads, num_hidden_layers: shape.layers,
    num_key_value_heads: shape.keyValueHeads, rms_norm_eps: 1e-5, tie_word_embeddings: false, use_cache: true, vocab_size: shape.vocabulary,
  }
}

function loraConfig(rank: number, alpha: number, targets: readonly string[]) {
  return {
    alora_invocation_tokens: null, alpha_pattern: {}, arrow_config: null, auto_mapping: null, base_model_name_or_path: null, bias: 'none',
    corda_config: null, ensure_weight_tying: false, eva_config: null, exclude_modules: null, fan_in_fan_out: false, inference_mode: true,
    init_lora_weights: true, layer_replication: null, layers_pattern: null, layers_to_transform: null, loftq_config: {}, lora_alpha: alpha,
    lora_bias: false, lora_dropout: 0.0, megatron_config: null, megatron_core: 'megatron.core', modules_to_save: null, peft_type: 'LORA',
    peft_version: '0.21.0', qalora_group_size: 16, r: rank, rank_pattern: {}, revision: null, target_modules: [...targets].sort(), target_parameters: null,
    task_type: 'CAUSAL_LM', trainable_token_indices: null, use_dora: false, use_qalora: false, use_rslora: false,
  }
}
