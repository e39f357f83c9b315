import type { ManifestTensor } from './manifest.ts'
import type { Checkpoint } from './checkpoint.ts'
import type { RowRange } from './edit.ts'

/**
 * Where the experts of a mixture lie on disk. In memory transformers 5 holds those of a layer in one parameter, which
 * is what `target_parameters` names; on disk most model types have a tensor for each expert and projection (transformers
 * 5.18, conversion_mapping.py).
 */
export interface ExpertPart {
  readonly tensor: ManifestTensor
  /** The experts in this tensor, the first and how many. */
  readonly expert: { readonly first: number; readonly count: number }
  /** Rows of each expert's matrix, as it is in memory, that this tensor holds; null for all of them. */
  readonly rows: RowRange | null
}

const GATE_UP_DOWN = { gate_up_proj: ['gate_proj', 'up_proj'], down_proj: ['down_proj'] }
const W1_W3_W2 = { gate_up_proj: ['w1', 'w3'], down_proj: ['w2'] }
const UP_DOWN = { up_proj: ['up_proj'], down_proj: ['down_proj'] }

/** For each parameter, the projections of one expert whose rows it has one after the other. */
const PROJECTIONS: readonly { readonly types: readonly string[]; readonly parameters: Readonly<Record<string, readonly string[]>> }[] = [
  {
    types: [
      'afmoe', 'axk1', 'axk2', 'cohere2_moe', 'deepseek_ocr2', 'deepseek_v2', 'deepseek_v3', 'deepseek_v32', 'dots1', 'ernie4_5_moe', 'exaone_moe', 'flex_olmo',
      'glm4_moe', 'glm4_moe_lite', 'glm4v_moe', 'glm5_next', 'glm5_next_text', 'glm_moe_dsa', 'hunyuan_v1_moe', 'hy_v3', 'jamba', 'kimi_k25', 'laguna',
      'longcat_flash', 'mellum', 'mimo_v2_flash', 'olmoe', 'qwen2_moe', 'qwen3_5_moe', 'qwen3_5_moe_text', 'qwen3_moe', 'qwen3_next', 'qwen3_omni_moe',
      'qwen3_omni_moe_thinker', 'qwen4_exp', 'qwen4_exp_text', 'solar_open',
    ],
    parameters: GATE_UP_DOWN,
  },
  { types: ['deepseek_v4', 'kimi_linear', 'lfm2_moe', 'minimax', 'minimax_m2', 'minimax_m3_vl', 'mixtral', 'phimoe'], parameters: W1_W3_W2 },
  { types: ['nemotron_h'], parameters: UP_DOWN },
]

/** Model types that hold all experts in one tensor on disk too, under another name; several are rows one after the other. */
const STACKED: readonly { readonly types: readonly string[]; readonly names: readonly (readonly [RegExp, readonly string[]])[] }[] = [
  {
    types: ['granitemoe', 'granitemoeshared', 'granitemoehybrid'],
    names: [[/\.experts\.gate_up_proj$/, ['.input_linear.weight']], [/\.experts\.down_proj$/, ['.output_linear.weight']]],
  },
  { types: ['aria', 'aria_text'], names: [[/\.experts\.gate_up_proj$/, ['.experts.fc1.weight']], [/\.experts\.down_proj$/, ['.experts.fc2.weight']]] },
  { types: ['step3p7'], names: [[/\.mlp\.experts\.gate_up_proj$/, ['.moe.gate_proj.weight', '.moe.up_proj.weight']], [/\.mlp\.experts\.down_proj$/, ['.moe.down_proj.weight']]] },
]

/** Model types whose experts lie as (experts, in, out) in memory: a square matrix does not tell. */
const IN_OUT_TYPES: ReadonlySet<string> = new Set(['gpt_oss', 'openai_privacy_filter', 'aria', 'aria_text'])

/** Whether a model of this type stores each expert's matrix as (in, out), where its shape does not tell. */
export function storesExpertsInOut(modelType: string | null): boolean {
  return modelType !== null && IN_OUT_TYPES.has(modelType)
}

/**
 * The tensors that hold the parameter `name`, such as `model.layers.0.mlp.experts.gate_up_proj`, of `experts` experts;
 * none where the checkpoint does not have it. Null where it has it, but for another number of experts.
 */
export function findExpertParts(checkpoint: Checkpoint, name: string, experts: number): ExpertPart[] | null {
  const whole = checkpoint.find(name)
  if (whole !== null) return [{ tensor: whole, expert: { first: 0, count: experts }, rows: null }]
  const stacked = namesFor(STACKED, checkpoint.modelType)?.find(([pattern]) => pattern.test(name))
  if (stacked !== undefined) return stackRows(stacked[1].map((ending) => checkpoint.find(name.replace(stacked[0], ending))), { first: 0, count: experts })
  const dot = name.lastIndexOf('.')
  const projections = PROJECTIONS.find(({ types }) => checkpoint.modelType !== null && types.includes(checkpoint.modelType))?.parameters[name.slice(dot + 1)]
  if (projections === undefined) return []
  const partsOf = (expert: number) => stackRows(projections.map((projection) => checkpoint.find(`${name.slice(0, dot)}.${expert}.${projection}.weight`)), { first: expert, count: 1 })
  if (partsOf(0)?.length === 0) return []
  if (experts > checkpoint.manifest.tensors.length || partsOf(experts)?.length !== 0) return null
  const parts = Array.from({ length: experts }, (_, expert) => partsOf(expert))
  return parts.every((part) => part !== null && part.length > 0) ? parts.flatMap((part) => part!) : null
}

/**
 * The rows of one expert's projection, such as `model.layers.0.mlp.experts.3.gate_proj`, where the checkpoint holds all
 * experts in one tensor: adapters of transformers 4 have a pair of factors for each. Null where it does not.
 */
export function findInStack(checkpoint: Checkpoint, module: string): { readonly tensor: ManifestTensor; readonly rows: RowRange } | null {
  const [, owner, expert, projection] = /^(.*)\.(\d{1,6})\.(\w+)$/.exec(module) ?? []
  if (owner === undefined || expert === undefined || projection === undefined) return null
  const { parameters } = PROJECTIONS.find(({ types }) => checkpoint.modelType !== null && types.includes(checkpoint.modelType)) ?? { parameters: {} as Readonly<Record<string, readonly string[]>> }
  for (const [parameter, projections] of Object.entries(parameters)) {
    const place = projections.indexOf(projection)
    const tensor = place < 0 ? null : (checkpoint.find(`${owner}.${parameter}`) ?? checkpoint.find(`${owner.replace('.block_sparse_moe.', '.mlp.')}.${parameter}`))
    if (tensor === null || tensor.shape.length !== 3 || Number(expert) >= tensor.shape[0]!) continue
    const count = tensor.shape[1]! / projections.length
    return { tensor, rows: { first: Number(expert) * tensor.shape[1]! + place * count, count } }
  }
  return null
}

function namesFor(table: typeof STACKED, modelType: string | null) {
  return table.find(({ types }) => modelType !== null && types.includes(modelType))?.names
}

/** Tensors whose rows follow each other in each expert's matrix: none of none, null of some. */
function stackRows(tensors: readonly (ManifestTensor | null)[], expert: ExpertPart['expert']): ExpertPart[] | null {
  const present = tensors.filter((tensor) => tensor !== null)
  if (present.length < tensors.length) return present.length === 0 ? [] : null
  if (present.length === 1) return [{ tensor: present[0]!, expert, rows: null }]
  let first = 0
  return present.map((tensor) => {
    const rows = { first, count: tensor.shape.at(-2) ?? 0 }
    first += rows.count
    return { tensor, expert, rows }
  })
}
