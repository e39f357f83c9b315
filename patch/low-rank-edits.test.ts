import { describe, expect, it } from 'vitest'
import { readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { checkConsumption } from './consumption.ts'
import type { AdditiveEdit, MatrixView } from './edit.ts'
import { adapterEdits } from './edits.ts'
import type { ModelManifest } from './manifest.ts'
import { SAMPLE_FACTS, sampleConfig, sampleFactors, sampleManifest, sampleModel } from './sample-manifests.ts'

const Q = 'model.layers.0.self_attn.q_proj'

function tensor(name: string, shape: readonly number[]): AdapterTensor {
  return { name: `base_model.model.${name}`, dtype: 'F32', shape }
}

function lay(tensors: readonly AdapterTensor[], target: ModelManifest, config: Record<string, unknown> = {}, base: ModelManifest | null = null) {
  const adapter = readAdapter(sampleConfig({ target_modules: null, ...config }), tensors)
  const laid = adapterEdits(adapter, target, base)
  const unused = checkConsumption(adapter, laid, laid.reasons)
  return { ...laid, codes: [...laid.reasons, ...unused].filter(({ severity }) => severity !== 'info').map(({ severity, code }) => `${severity} ${code}`) }
}

function model(shapes: Record<string, readonly number[]>, modelType = 'llama') {
  return sampleManifest(Object.entries(shapes), 'BF16', { ...SAMPLE_FACTS, modelType })
}

describe('DoRA', () => {
  const dora = (module: string, out: number, input: number, magnitude: readonly number[] = [out]) => [...sampleFactors(module, out, input), tensor(`${module}.lora_magnitude_vector`, magnitude)]

  it('normalises each output: a stored row of a linear layer, a stored column of Conv1D and of embeddings', () => {
    expect(lay(dora(Q, 8, 8), sampleModel(), { use_dora: true }).edits).toMatchObject([{ kind: 'dora', axis: 'rows', magnitude: { tensor: `base_model.model.${Q}.lora_magnitude_vector`, offset: 0 }, scale: 2 }])
    const gpt2 = lay(dora('h.0.attn.c_attn', 24, 8), model({ 'h.0.attn.c_attn.weight': [8, 24] }, 'gpt2'), { use_dora: true })
    expect(gpt2).toMatchObject({ codes: [], edits: [{ axis: 'columns', rows: { count: 8 }, cols: 24 }] })
    const embedding = [tensor('model.embed_tokens.lora_embedding_A', [4, 32]), tensor('model.embed_tokens.lora_embedding_B', [8, 4]), tensor('model.embed_tokens.lora_magnitude_vector', [8])]
    expect(lay(embedding, sampleModel(), { use_dora: true })).toMatchObject({ codes: [], edits: [{ axis: 'columns', rows: { count: 32 }, cols: 8 }] })
  })

  it('folds the kernel of a convolution into the columns', () => {
    const conv = [tensor('conv.lora_A.weight', [4, 3, 2, 2]), tensor('conv.lora_B.weight', [8, 4, 1, 1]), tensor('conv.lora_magnitude_vector', [1, 8, 1, 1])]
    expect(lay(conv, model({ 'conv.weight': [8, 3, 2, 2] }), { use_dora: true })).toMatchObject({ codes: [], edits: [{ kind: 'dora', axis: 'rows', rows: { count: 8 }, cols: 12 }] })
  })
})

describe('lora_bias', () => {
  const factors = [...sampleFactors(Q, 8, 8), tensor(`${Q}.lora_B.bias`, [8])]

  it('adds the scaled bias of B to the layer\'s own', () => {
    const target = model({ [`${Q}.weight`]: [8, 8], [`${Q}.bias`]: [8] })
    expect(lay(factors, target, { lora_bias: true })).toMatchObject({
      codes: [], edits: [{ kind: 'dense', target: `${Q}.bias`, rows: { first: 0, count: 1 }, cols: 8, scale: 2, base: null, value: { tensor: `base_model.model.${Q}.lora_B.bias`, offset: 0 } }, { kind: 'additive' }],
    })
  })

  it('is refused where the target has no bias', () => {
    expect(lay(factors, sampleModel({ layers: 1 }), { lora_bias: true })).toMatchObject({ codes: ['refusal lora-bias'] })
  })
})

describe('convolutions', () => {
  const conv = (rank: number, ...kernel: number[]) => [tensor('conv.lora_A.weight', [rank, 3, ...kernel]), tensor('conv.lora_B.weight', [8, rank, ...kernel.map(() => 1)])]

  it.each([[[5]], [[1, 1]], [[2, 3]], [[2, 2, 2]]])('of the kernel %j are matrices', (kernel) => {
    const { edits, codes } = lay(conv(4, ...kernel), model({ 'conv.weight': [8, 3, ...kernel] }))
    const columns = kernel.reduce((product, size) => product * size, 3)
    expect(codes).toEqual([])
    expect(edits).toMatchObject([{ rows: { first: 0, count: 8 }, cols: columns, left: { strides: [4, 1] }, right: { strides: [columns, 1] } }])
  })

  it('with groups are refused, whether the rank or the weight shows them', () => {
    const grouped = [tensor('conv.lora_A.weight', [4, 8, 3, 3]), tensor('conv.lora_B.weight', [8, 2, 1, 1])]
    expect(lay(grouped, model({ 'conv.weight': [8, 4, 3, 3] })).codes).toEqual(['refusal convolution'])
    expect(lay([tensor('conv.lora_A.weight', [4, 8, 3, 3]), tensor('conv.lora_B.weight', [8, 4, 1, 1])], model({ 'conv.weight': [8, 1, 3, 3] })).codes).toEqual(['refusal convolution'])
    expect(lay(conv(4, 3, 3), model({ 'conv.weight': [8, 3, 2, 2] })).codes).toEqual(['refusal shape-mismatch'])
  })
})

describe('torch.nn.MultiheadAttention', () => {
  const attention = [...sampleFactors('attn', 24, 8), tensor('attn.base_layer.out_proj.lora_A.weight', [4, 8]), tensor('attn.base_layer.out_proj.lora_B.weight', [8, 4])]
  const target = model({ 'attn.in_proj_weight': [24, 8], 'attn.in_proj_bias': [24], 'attn.out_proj.weight': [8, 8], 'attn.out_proj.bias': [8] })

  it('is changed at both ends, the output twice, as PEFT does, and says so', () => {
    const { edits, codes, reasons } = lay(attention, target, { target_modules: ['attn'] })
    expect(codes).toEqual([])
    expect(edits).toMatchObject([{ target: 'attn.in_proj_weight', scale: 2, rows: { count: 24 } }, { target: 'attn.out_proj.weight', scale: 4 }])
    expect(reasons).toMatchObject([{ code: 'multihead-attention', severity: 'info', tensor: 'attn.out_proj.weight' }])
  })

  it('has no DoRA and no bias of B on its inputs', () => {
    expect(lay([...sampleFactors('attn', 24, 8), tensor('attn.lora_magnitude_vector', [24])], target, { use_dora: true }).codes).toEqual(['refusal multihead-attention'])
    expect(lay([...sampleFactors('attn', 24, 8), tensor('attn.lora_B.bias', [24])], target, { lora_bias: true }).codes).toEqual(['refusal lora-bias'])
  })
})

describe('PiSSA and OLoRA', () => {
  it.each(['pissa', 'olora'])('%s takes its product out of the base again', (method) => {
    expect(lay(sampleFactors(Q, 8, 8), sampleModel(), { init_lora_weights: method }, sampleModel())).toMatchObject({ codes: [], edits: [{ kind: 'additive', initial: { method, base: `${Q}.weight` } }] })
    const alone = lay(sampleFactors(Q, 8, 8), sampleModel(), { init_lora_weights: method })
    expect(alone.codes).toEqual(['refusal base-changing-initialisation'])
    expect(alone.reasons[0]).toMatchObject({ expected: 'the exact base', remedy: expect.stringContaining('path_initial_model_for_weight_conversion') })
  })

  it.each(['F16', 'F8_E4M3', 'F8_E5M2'] as const)('may have begun from %s, which PEFT widens exactly', (dtype) => {
    const base = sampleModel({ dtype })
    expect(lay(sampleFactors(Q, 8, 8), base, { init_lora_weights: 'pissa' }, base)).toMatchObject({ codes: [], edits: [{ initial: { base: `${Q}.weight` } }] })
  })

  it('are refused on a base that PEFT was given in another dtype', () => {
    const wide = lay(sampleFactors(Q, 8, 8), sampleModel({ dtype: 'F64' }), { init_lora_weights: 'olora' }, sampleModel({ dtype: 'F64' }))
    expect(wide.codes).toEqual(['refusal base-changing-initialisation'])
    expect(wide.reasons[0]!.message).toContain('PEFT does not start from F64')
    const scaled = sampleManifest([[`${Q}.weight`, [8, 8]], [`${Q}.weight_scale`, [1]]], 'F8_E4M3')
    const { codes, reasons } = lay(sampleFactors(Q, 8, 8), model({ [`${Q}.weight`]: [8, 8] }), { init_lora_weights: 'pissa' }, scaled)
    expect(codes).toEqual(['refusal base-changing-initialisation'])
    expect(reasons[0]!.message).toContain('PEFT does not start from F8_E4M3 with scales')
  })

  it('start embeddings the ordinary way', () => {
    const embedding = [tensor('model.embed_tokens.lora_embedding_A', [4, 32]), tensor('model.embed_tokens.lora_embedding_B', [8, 4])]
    expect(lay(embedding, sampleModel(), { init_lora_weights: 'pissa' })).toMatchObject({ codes: [], edits: [{ initial: null }] })
  })

  it('are refused where the change cannot be made anew', () => {
    const code = ['refusal base-changing-initialisation']
    const conv1d = model({ 'h.0.attn.c_proj.weight': [8, 8] }, 'gpt2')
    expect(lay(sampleFactors('h.0.attn.c_proj', 8, 8), conv1d, { init_lora_weights: 'olora' }, conv1d).codes).toEqual(code)
    expect(lay(sampleFactors('h.0.attn.c_proj', 8, 8), conv1d, { init_lora_weights: 'pissa' }, conv1d).codes).toEqual([])
    expect(lay([...sampleFactors(Q, 8, 8), tensor(`${Q}.lora_magnitude_vector`, [8])], sampleModel(), { init_lora_weights: 'pissa', use_dora: true }, sampleModel()).codes).toEqual(code)
    expect(lay(sampleFactors(Q, 8, 8, 9), sampleModel(), { init_lora_weights: 'pissa', r: 9 }, sampleModel()).codes).toEqual(code)
    expect(lay(sampleFactors(Q, 8, 8), sampleModel(), { init_lora_weights: 'pissa' }, sampleModel({ layers: 0 })).codes).toEqual(code)
    expect(lay([tensor('conv.lora_A.weight', [4, 3, 1, 1]), tensor('conv.lora_B.weight', [8, 4, 1, 1])], model({ 'conv.weight': [8, 3, 1, 1] }), { init_lora_weights: 'pissa' }, sampleModel()).codes).toEqual(code)
  })
})

/** Three experts of rank 2 with 5 inputs and 6 outputs, as PEFT lays the factors out. */
const [EXPERTS, RANK, IN, OUT] = [3, 2, 5, 6] as const
const FACTORS = [tensor('model.layers.0.mlp.experts.lora_A.weight', [EXPERTS * RANK, IN]), tensor('model.layers.0.mlp.experts.lora_B.weight', [OUT, RANK * EXPERTS])]
const valueA = (row: number, column: number) => row * IN + column + 1
const valueB = (row: number, column: number) => 7 * row - 3 * column + 2

/** PEFT's `einsum("o r e, e r i -> e o i")` over the reshaped factors (lora/layer.py, ParamWrapper.get_delta_weight). */
function expertDelta(expert: number, out: number, input: number): number {
  let sum = 0
  for (let r = 0; r < RANK; r += 1) sum += valueB(out, r * EXPERTS + expert) * valueA(expert * RANK + r, input)
  return sum
}

/** The product of an edit, read through its views. */
function productOf(edit: AdditiveEdit): number[][] {
  const at = ({ tensor: name, offset, strides }: MatrixView, i: number, j: number) => {
    const index = offset + i * strides[0] + j * strides[1]
    return name.includes('lora_A') ? valueA(Math.floor(index / IN), index % IN) : valueB(Math.floor(index / (RANK * EXPERTS)), index % (RANK * EXPERTS))
  }
  return Array.from({ length: edit.rows.count }, (_, i) => Array.from({ length: edit.cols }, (_, j) => {
    let sum = 0
    for (let k = 0; k < edit.rank; k += 1) sum += at(edit.left, i, k) * at(edit.right, k, j)
    return sum
  }))
}

function layExperts(shapes: Record<string, readonly number[]>, modelType: string, parameter = 'gate_up_proj', factors = FACTORS) {
  const laid = lay(factors, model(shapes, modelType), { target_modules: [], target_parameters: [`experts.${parameter}`], r: RANK })
  return { ...laid, edits: laid.edits as AdditiveEdit[] }
}

const PREFIX = 'model.layers.0.mlp.experts'

describe('experts', () => {
  it('in one tensor of (experts, out, in) are runs of rows', () => {
    const { edits, codes } = layExperts({ [`${PREFIX}.gate_up_proj`]: [EXPERTS, OUT, IN] }, 'llama4_text')
    expect(codes).toEqual([])
    expect(edits.map(({ rows, cols }) => [rows.first, rows.count, cols])).toEqual([[0, 6, 5], [6, 6, 5], [12, 6, 5]])
    edits.forEach((edit, expert) => expect(productOf(edit)).toEqual(Array.from({ length: OUT }, (_, o) => Array.from({ length: IN }, (_, i) => expertDelta(expert, o, i)))))
  })

  it('in one tensor of (experts, in, out) swap the factors', () => {
    const { edits, codes } = layExperts({ [`${PREFIX}.gate_up_proj`]: [EXPERTS, IN, OUT] }, 'gpt_oss')
    expect(codes).toEqual([])
    edits.forEach((edit, expert) => expect(productOf(edit)).toEqual(Array.from({ length: IN }, (_, i) => Array.from({ length: OUT }, (_, o) => expertDelta(expert, o, i)))))
  })

  it.each([['gpt_oss', true], ['qwen3_vl_moe', false], ['llama4_text', false]])('that are square lie as %s has them', (modelType, isInOut) => {
    const square = [tensor('model.layers.0.mlp.experts.lora_A.weight', [EXPERTS * RANK, 5]), tensor('model.layers.0.mlp.experts.lora_B.weight', [5, RANK * EXPERTS])]
    const { edits } = layExperts({ [`${PREFIX}.gate_up_proj`]: [EXPERTS, 5, 5] }, modelType, 'gate_up_proj', square)
    expect(edits.map(({ left }) => left.tensor.includes('lora_A'))).toEqual([isInOut, isInOut, isInOut])
  })

  it.each([
    ['mixtral', 'model.layers.0.block_sparse_moe.experts', ['w1', 'w3']],
    ['qwen3_moe', PREFIX, ['gate_proj', 'up_proj']],
  ])('of %s have a tensor each on disk, the gate before the up', (modelType, prefix, names) => {
    const shapes = Object.fromEntries([0, 1, 2].flatMap((expert) => names.map((name) => [`${prefix}.${expert}.${name}.weight`, [OUT / 2, IN]])))
    const { edits, codes } = layExperts(shapes, modelType)
    expect(codes).toEqual([])
    expect(edits.map(({ target }) => target)).toEqual(Object.keys(shapes))
    edits.forEach((edit, index) => {
      const [expert, half] = [Math.floor(index / 2), index % 2]
      expect(productOf(edit)).toEqual(Array.from({ length: OUT / 2 }, (_, o) => Array.from({ length: IN }, (_, i) => expertDelta(expert, o + (half * OUT) / 2, i))))
    })
  })

  it('of GraniteMoe and Step lie stacked under other names', () => {
    const granite = lay(FACTORS.map(({ name, shape }) => tensor(name.slice('base_model.model.'.length).replace('.mlp.', '.block_sparse_moe.'), shape)), model({ 'model.layers.0.block_sparse_moe.input_linear.weight': [EXPERTS, OUT, IN] }, 'granitemoe'), { target_modules: [], target_parameters: ['gate_up_proj'], r: RANK })
    expect(granite).toMatchObject({ codes: [], edits: [{ rows: { first: 0 } }, { rows: { first: 6 } }, { rows: { first: 12 } }] })
    const step = layExperts({ 'model.layers.0.moe.gate_proj.weight': [EXPERTS, 2, IN], 'model.layers.0.moe.up_proj.weight': [EXPERTS, 4, IN] }, 'step3p7')
    expect(step.codes).toEqual([])
    expect(step.edits.map(({ target, rows }) => [target.slice(19), rows.first, rows.count])).toEqual([
      ['gate_proj.weight', 0, 2], ['gate_proj.weight', 2, 2], ['gate_proj.weight', 4, 2], ['up_proj.weight', 0, 4], ['up_proj.weight', 4, 4], ['up_proj.weight', 8, 4],
    ])
    expect(productOf(step.edits[4]!)[0]![0]).toBe(expertDelta(1, 2, 0))
  })

  it('with a pair of factors each are rows of one tensor where the target holds them so', () => {
    const each = (module: string) => sampleFactors(module, 4, 8)
    const stack = { 'model.layers.0.mlp.experts.gate_up_proj': [3, 8, 8], 'model.layers.0.mlp.experts.down_proj': [3, 4, 8] }
    const mixtral = lay([0, 2].flatMap((expert) => ['w1', 'w3', 'w2'].flatMap((name) => each(`model.layers.0.block_sparse_moe.experts.${expert}.${name}`))), model(stack, 'mixtral'), { target_modules: ['w1', 'w2', 'w3'] })
    expect(mixtral.codes).toEqual([])
    expect(mixtral.edits.map(({ target, rows }) => [target.slice(PREFIX.length + 1), rows.first, rows.count])).toEqual([
      ['down_proj', 0, 4], ['down_proj', 8, 4], ['gate_up_proj', 0, 4], ['gate_up_proj', 4, 4], ['gate_up_proj', 16, 4], ['gate_up_proj', 20, 4],
    ])
    expect(mixtral.edits[3]?.consumes[0]).toContain('experts.0.w3')
    expect(lay(each(`${PREFIX}.3.up_proj`), model(stack, 'qwen3_moe')).codes).toEqual(['refusal missing-tensor'])
    expect(lay(sampleFactors(`${PREFIX}.1.up_proj`, 5, 8), model(stack, 'qwen3_moe')).codes).toEqual(['refusal shape-mismatch'])
  })

  it('are refused where the target has fewer, more, other or none', () => {
    const names = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, expert) => [`${PREFIX}.${expert}.down_proj.weight`, [OUT, IN]]))
    expect(layExperts(names(3), 'qwen3_moe', 'down_proj').codes).toEqual([])
    expect(layExperts(names(2), 'qwen3_moe', 'down_proj').codes).toEqual(['refusal missing-tensor'])
    expect(layExperts(names(4), 'qwen3_moe', 'down_proj').codes).toEqual(['refusal missing-tensor'])
    expect(layExperts({ [`${PREFIX}.down_proj`]: [4, OUT, IN] }, 'gpt_oss', 'down_proj').codes).toEqual(['refusal shape-mismatch'])
    expect(layExperts({ [`${PREFIX}.down_proj`]: [EXPERTS, OUT, 4] }, 'gpt_oss', 'down_proj').codes).toEqual(['refusal shape-mismatch'])
    expect(layExperts(names(3), 'unheard_of', 'down_proj').codes).toEqual(['refusal missing-tensor'])
    expect(layExperts({ 'model.layers.1.mlp.experts.down_proj': [EXPERTS, OUT, IN] }, 'gpt_oss', 'down_proj').codes).toEqual(['refusal fewer-layers'])
  })

  it('bare matrices are added as they lie, also where a module of that kind would be turned', () => {
    const router = lay(sampleFactors('model.layers.0.mlp.gate', 3, 8), model({ 'model.layers.0.block_sparse_moe.gate.weight': [3, 8] }, 'mixtral'), { target_modules: [], target_parameters: ['gate.weight'] })
    expect(router).toMatchObject({ codes: [], edits: [{ target: 'model.layers.0.block_sparse_moe.gate.weight', left: { strides: [4, 1] }, rows: { count: 3 }, cols: 8 }] })
    const conv1d = lay(sampleFactors('h.0.attn.c_attn', 8, 24), model({ 'h.0.attn.c_attn.weight': [8, 24] }, 'gpt2'), { target_modules: [], target_parameters: ['c_attn.weight'] })
    expect(conv1d).toMatchObject({ codes: [], edits: [{ left: { strides: [4, 1] } }] })
  })
})

describe('targets', () => {
  it.each(['F64', 'F8_E4M3', 'F8_E5M2'] as const)('in %s can be merged', (dtype) => {
    expect(lay(sampleFactors(Q, 8, 8), sampleModel({ dtype, layers: 1 })).codes).toEqual([])
  })

  it.each(['I8', 'U8', 'F8_E8M0', 'F4'] as const)('in %s are refused by name', (dtype) => {
    expect(lay(sampleFactors(Q, 8, 8), sampleModel({ dtype })).reasons).toMatchObject([{ code: 'target-dtype', found: dtype }])
  })

  it('in float8 with scales are refused', () => {
    const scaled = sampleManifest([[`${Q}.weight`, [8, 8]], [`${Q}.weight_scale_inv`, [1, 1]]], 'F8_E4M3')
    expect(lay(sampleFactors(Q, 8, 8), scaled).reasons).toMatchObject([{ code: 'quantized-target', tensor: `${Q}.weight`, found: `${Q}.weight_scale_inv` }])
  })

  it('that are stored under other names than in memory are found', () => {
    const find = (module: string, name: string, modelType: string) => lay(sampleFactors(module, 8, 8), model({ [name]: [8, 8] }, modelType)).edits.map(({ target }) => target)
    for (const [module, name, modelType] of [
      ['model.language_model.layers.0.q', 'language_model.model.layers.0.q.weight', 'gemma3'], ['lm_head', 'language_model.lm_head.weight', 'llava'],
      ['model.language_model.layers.0.q', 'model.layers.0.q.weight', 'qwen2_vl'], ['lm_head', 'embed_out.weight', 'gpt_neox'],
    ] as const) expect(find(module, name, modelType)).toEqual([name])
    expect(find('lm_head', 'embed_out.weight', 'llama')).toEqual([])
  })
})
