import { describe, expect, it } from 'vitest'
import { AdapterError, readAdapter } from './adapter.ts'
import type { AdapterTensor } from './adapter.ts'
import { sampleConfig, sampleFactors, sampleTensors } from './sample-manifests.ts'

const Q = 'model.layers.0.self_attn.q_proj'

function codes(config: string, tensors: readonly AdapterTensor[] = sampleTensors()): string[] {
  return readAdapter(config, tensors).reasons.map(({ severity, code }) => `${severity} ${code}`)
}

function scales(config: string, tensors: readonly AdapterTensor[]): Record<string, number> {
  return Object.fromEntries(readAdapter(config, tensors).modules.map(({ module, scale }) => [module, scale]))
}

describe('plain LoRA', () => {
  it('pairs the factors of each module and scales by alpha/rank', () => {
    const adapter = readAdapter(sampleConfig(), sampleTensors())
    expect(adapter.reasons).toEqual([])
    expect(adapter.modules).toHaveLength(4)
    expect(adapter.modules[0]).toMatchObject({ module: Q, kind: 'linear', rank: 4, alpha: 8, scale: 2, a: { shape: [4, 8] }, b: { shape: [8, 4] } })
  })

  it('scales by alpha/√rank with rslora', () => {
    expect(readAdapter(sampleConfig({ use_rslora: true, r: 3, lora_alpha: 7 }), sampleTensors(1, 8, 'model.', 3)).modules[0]?.scale).toBe(7 / Math.sqrt(3))
  })

  it('reads a config without the keys that older versions of PEFT did not have', () => {
    expect(codes(JSON.stringify({ peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj', 'v_proj'] }))).toEqual([])
  })

  it('reads embeddings', () => {
    const adapter = readAdapter(sampleConfig({ target_modules: ['embed_tokens'] }), [
      { name: 'base_model.model.model.embed_tokens.lora_embedding_A', dtype: 'F32', shape: [4, 32] },
      { name: 'base_model.model.model.embed_tokens.lora_embedding_B', dtype: 'F32', shape: [8, 4] },
      { name: 'base_model.model.model.embed_tokens.base_layer.weight', dtype: 'F32', shape: [32, 8] },
    ])
    expect(adapter.modules).toMatchObject([{ module: 'model.embed_tokens', kind: 'embedding', rank: 4 }])
    expect(adapter.copies).toMatchObject([{ module: 'model.embed_tokens' }])
  })

  it.each([true, false, 'gaussian', 'eva', 'orthogonal', 'mica'])('accepts the initialisation %s, which leaves the base alone', (value) => {
    expect(codes(sampleConfig({ init_lora_weights: value }))).toEqual([])
  })
})

describe('rank_pattern and alpha_pattern', () => {
  const tensors = [...sampleFactors(Q, 8, 8, 2), ...sampleFactors('model.layers.1.self_attn.q_proj', 8, 8, 4)]

  it('resolve independently, and the first key in the file wins', () => {
    const first = sampleConfig({ rank_pattern: { 'layers.0.self_attn.q_proj': 2, q_proj: 4 }, alpha_pattern: { q_proj: 16, 'layers.1.self_attn.q_proj': 32 } })
    expect(scales(first, tensors)).toEqual({ [Q]: 8, 'model.layers.1.self_attn.q_proj': 4 })
    const second = sampleConfig({ rank_pattern: { 'layers.0.self_attn.q_proj': 2, q_proj: 4 }, alpha_pattern: { 'layers.1.self_attn.q_proj': 32, q_proj: 16 } })
    expect(scales(second, tensors)).toEqual({ [Q]: 8, 'model.layers.1.self_attn.q_proj': 8 })
  })

  it('warn where keys overlap with different values, and where a key fits nothing', () => {
    expect(codes(sampleConfig({ alpha_pattern: { q_proj: 16, '.*q_proj': 8, k_proj: 3 } }))).toEqual(['warning overlapping-patterns', 'warning unused-pattern'])
    expect(codes(sampleConfig({ alpha_pattern: { q_proj: 16, '.*q_proj': 16 } }))).toEqual([])
  })

  it.each(['(?<=self_attn.)q_proj', '(?i)Q_PROJ', '0', 'a)(b', 'x{,3}', 'q_proj(', 'q'.repeat(1001) + '*'])('refuse the key %s', (key) => {
    expect(codes(sampleConfig({ alpha_pattern: { [key]: 16 } }))).toEqual(['refusal unsupported-pattern'])
  })

  it('take linear time with an expression made to explode', () => {
    const module = `model.${'a'.repeat(400)}`
    const config = sampleConfig({ target_modules: null, alpha_pattern: { '(a*)*(a*)*(a|a)*b': 3 } })
    const start = performance.now()
    expect(codes(config, sampleFactors(module, 8, 8))).toEqual(['warning unused-pattern'])
    expect(performance.now() - start).toBeLessThan(1000)
  })

  it('refuse more work than any real adapter asks for', () => {
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`(a|b)${index}`, 4]))
    expect(codes(sampleConfig({ alpha_pattern: many }))).toEqual(['refusal unsupported-pattern'])
  })
})

describe('varieties that cannot be merged', () => {
  it.each([
    [{ use_dora: true }, 'dora'],
    [{ lora_bias: true }, 'lora-bias'],
    [{ bias: 'all' }, 'trained-bias'],
    [{ bias: 'lora_only' }, 'trained-bias'],
    [{ modules_to_save: ['lm_head'] }, 'modules-to-save'],
    [{ trainable_token_indices: [1, 2] }, 'trainable-tokens'],
    [{ trainable_token_indices: { embed_tokens: [1] } }, 'trainable-tokens'],
    [{ init_lora_weights: 'pissa' }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'pissa_niter_16' }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'olora' }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'corda' }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'loftq', loftq_config: { loftq_bits: 4 } }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'lora_ga' }, 'base-changing-initialisation'],
    [{ lora_ga_config: {} }, 'base-changing-initialisation'],
    [{ corda_config: { corda_method: 'ipm' } }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'brand_new' }, 'unknown-initialisation'],
    [{ target_parameters: ['experts.gate_up_proj'] }, 'target-parameters'],
    [{ alora_invocation_tokens: [1] }, 'activated-lora'],
    [{ arrow_config: {} }, 'arrow'],
    [{ kasa_config: { beta: 1 } }, 'kasa'],
    [{ monteclora_config: {} }, 'monteclora'],
    [{ use_bdlora: {} }, 'bdlora'],
    [{ use_qalora: true }, 'qalora'],
    [{ velora_config: {} }, 'velora'],
    [{ megatron_config: {} }, 'megatron'],
    [{ layer_replication: [[0, 4]] }, 'layer-replication'],
    [{ ensure_weight_tying: true }, 'weight-tying'],
    [{ use_tomorrow: true }, 'unknown-config-key'],
    [{ use_tomorrow: false }, 'unknown-config-key'],
    [{ peft_type: 'LOHA' }, 'peft-type'],
  ])('%o is refused as %s, with a remedy', (changes, code) => {
    const { reasons } = readAdapter(sampleConfig(changes), sampleTensors())
    expect(reasons.map((reason) => `${reason.severity} ${reason.code}`)).toEqual([`refusal ${code}`])
    expect(reasons[0]?.remedy).toBeTruthy()
  })

  it.each([{ use_tomorrow: null }, { modules_to_save: [] }, { layer_replication: null }, { loftq_config: { loftq_bits: 4 } }])('%o changes nothing', (changes) => {
    expect(codes(sampleConfig(changes))).toEqual([])
  })

  it.each([
    [`${Q}.lora_magnitude_vector`, [8], 'dora'],
    [`${Q}.lora_B.bias`, [8], 'lora-bias'],
    [`${Q}.base_layer.bias`, [8], 'trained-bias'],
    ['model.norm.bias', [8], 'trained-bias'],
    ['lm_head.weight', [32, 8], 'modules-to-save'],
    ['lm_head.modules_to_save.default.weight', [32, 8], 'modules-to-save'],
    ['model.embed_tokens.token_adapter.trainable_tokens_delta', [2, 8], 'trainable-tokens'],
    [`${Q}.lora_diag`, [4], 'kasa'],
    ['model.mlp.experts.base_layer.lora_A.weight', [8, 8], 'target-parameters'],
    ['model.attn.base_layer.out_proj.lora_A.weight', [4, 8], 'multihead-attention'],
    [`${Q}.lora_A.default.weight`, [4, 8], 'unknown-adapter-tensor'],
  ])('the tensor %s is refused whatever the config says', (name, shape, code) => {
    const odd: AdapterTensor = { name: `base_model.model.${name}`, dtype: 'F32', shape }
    expect(codes(sampleConfig(), [...sampleTensors(), odd])).toEqual([`refusal ${code}`])
  })

  it('names convolutions, foreign dtypes and foreign prefixes', () => {
    const [a, b] = sampleFactors(Q, 8, 8) as [AdapterTensor, AdapterTensor]
    expect(codes(sampleConfig(), [{ ...a, shape: [4, 8, 1, 1] }, b])).toContain('refusal convolution')
    expect(codes(sampleConfig(), [{ ...a, dtype: 'F64' }, b])).toContain('refusal factor-dtype')
    expect(codes(sampleConfig(), [{ ...a, name: 'unet.q.lora_A.weight' }])).toContain('refusal unknown-adapter-tensor')
    expect(codes(sampleConfig(), [])).toContain('refusal empty-adapter')
  })
})

describe('targeting', () => {
  it('warns of a target without factors, and refuses factors without a target', () => {
    expect(codes(sampleConfig({ target_modules: ['q_proj', 'v_proj', 'o_proj'] }))).toEqual(['warning unused-target-module'])
    expect(codes(sampleConfig({ target_modules: ['q_proj'] }))).toEqual(['refusal untargeted-module', 'refusal untargeted-module'])
  })

  it.each([
    [{ target_modules: 'all-linear' }, 0],
    [{ target_modules: null }, 0],
    [{ target_modules: '.*\\.(q_proj|v_proj)' }, 0],
    [{ target_modules: '(q_proj|v_proj)' }, 4],
    [{ exclude_modules: ['v_proj'] }, 2],
    [{ exclude_modules: '.*1.self_attn.*' }, 2],
    [{ layers_to_transform: [0, 1] }, 0],
    [{ layers_to_transform: 0 }, 2],
    [{ layers_to_transform: [0, 1], layers_pattern: 'h' }, 4],
    [{ layers_to_transform: [1], layers_pattern: ['layers'] }, 2],
    [{ layers_to_transform: [1], target_modules: [Q, 'model.layers.0.self_attn.v_proj', 'q_proj', 'v_proj'] }, 0],
  ])('%o leaves %i modules out', (changes, count) => {
    expect(codes(sampleConfig(changes)).filter((code) => code === 'refusal untargeted-module')).toHaveLength(count)
  })

  it('says where it cannot compare', () => {
    expect(codes(sampleConfig({ target_modules: '(?!x).*' }))).toEqual(['info targeting-unchecked'])
  })
})

describe('malformed adapters', () => {
  it.each([
    ['invalid-json', '{'],
    ['invalid-json', '{"r": 4, "r": 8, "peft_type": "LORA", "lora_alpha": 1}'],
    ['invalid-json', `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
    ['invalid-config', '[]'],
    ['invalid-config', '{}'],
    ['invalid-config', sampleConfig({ r: 0 })],
    ['invalid-config', sampleConfig({ r: 1.5 })],
    ['invalid-config', sampleConfig({ lora_alpha: 0 })],
    ['invalid-config', sampleConfig({ lora_alpha: undefined })],
    ['invalid-config', sampleConfig({ lora_alpha: '8' })],
    ['invalid-json', sampleConfig().replace('"lora_alpha":8', '"lora_alpha":NaN')],
    ['invalid-config', sampleConfig().replace('"lora_alpha":8', '"lora_alpha":1e999')],
    ['invalid-config', sampleConfig({ rank_pattern: [4] })],
    ['invalid-config', sampleConfig().replace('"rank_pattern":{}', '"rank_pattern":{"__proto__":4}')],
    ['invalid-config', sampleConfig().replace('"r":4', '"__proto__":{"r":4},"r":4')],
    ['invalid-config', `{"x":"${'x'.repeat(1024 * 1024)}"}`],
  ])('%s: case %#', (code, config) => {
    expect(() => readAdapter(config, sampleTensors())).toThrow(expect.objectContaining({ name: 'AdapterError', code }))
  })

  it.each([
    ['unpaired-factor', (tensors: AdapterTensor[]) => tensors.slice(1)],
    ['duplicate-tensor', (tensors: AdapterTensor[]) => [...tensors, tensors[0] as AdapterTensor]],
    ['rank-mismatch', (tensors: AdapterTensor[]) => tensors.with(0, { ...(tensors[0] as AdapterTensor), shape: [5, 8] })],
    ['rank-mismatch', () => sampleTensors(2, 8, 'model.', 5)],
    ['factor-shape', (tensors: AdapterTensor[]) => tensors.with(0, { ...(tensors[0] as AdapterTensor), shape: [4] })],
    ['factor-shape', (tensors: AdapterTensor[]) => tensors.with(0, { ...(tensors[0] as AdapterTensor), shape: [4, 0] })],
  ])('%s', (code, change) => {
    expect(() => readAdapter(sampleConfig(), change(sampleTensors()))).toThrow(AdapterError)
    expect(() => readAdapter(sampleConfig(), change(sampleTensors()))).toThrow(expect.objectContaining({ code }))
  })
})
