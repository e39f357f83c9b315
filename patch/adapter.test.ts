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
    expect(adapter.values).toMatchObject([{ name: 'model.embed_tokens.weight', feature: 'embedding-copy' }])
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
    const start = process.threadCpuUsage()
    expect(codes(config, sampleFactors(module, 8, 8))).toEqual(['warning unused-pattern'])
    expect(process.threadCpuUsage(start).user / 1000).toBeLessThan(1000)
  })

  it('refuse more work than any real adapter asks for', () => {
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`(a|b)${index}`, 4]))
    expect(codes(sampleConfig({ alpha_pattern: many }))).toEqual(['refusal unsupported-pattern'])
  })
})

/** Tensors as PEFT 0.21 names and shapes them; the keys were read from adapters that it saved. */
function tensor(name: string, shape: readonly number[], dtype: AdapterTensor['dtype'] = 'F32'): AdapterTensor {
  return { name: `base_model.model.${name}`, dtype, shape }
}

describe('varieties', () => {
  it('reads the magnitudes of DoRA, in both spellings', () => {
    for (const ending of ['', '.weight']) {
      const magnitude = tensor(`${Q}.lora_magnitude_vector${ending}`, [8])
      expect(readAdapter(sampleConfig({ use_dora: true, target_modules: null }), [...sampleFactors(Q, 8, 8), magnitude])).toMatchObject({ reasons: [], modules: [{ magnitude }] })
    }
    const embedding = [tensor('wte.lora_embedding_A', [4, 32]), tensor('wte.lora_embedding_B', [8, 4]), tensor('wte.lora_magnitude_vector', [8])]
    expect(readAdapter(sampleConfig({ use_dora: true, target_modules: ['wte'] }), embedding)).toMatchObject({ reasons: [], modules: [{ kind: 'embedding', magnitude: { shape: [8] } }] })
    const convolution = [tensor('conv.lora_A.weight', [4, 3, 2, 2]), tensor('conv.lora_B.weight', [8, 4, 1, 1]), tensor('conv.lora_magnitude_vector', [1, 8, 1, 1])]
    expect(readAdapter(sampleConfig({ use_dora: true, target_modules: ['conv'] }), convolution)).toMatchObject({ reasons: [], modules: [{ kind: 'convolution' }] })
  })

  it('refuses magnitudes and biases that the config denies, or claims in vain', () => {
    expect(codes(sampleConfig({ use_dora: true }), sampleTensors(1))).toEqual(['refusal dora', 'refusal dora'])
    expect(codes(sampleConfig({ target_modules: null }), [...sampleFactors(Q, 8, 8), tensor(`${Q}.lora_magnitude_vector`, [8])])).toEqual(['refusal dora'])
    expect(codes(sampleConfig({ target_modules: null, use_dora: true }), [...sampleFactors(Q, 8, 8), tensor(`${Q}.lora_magnitude_vector`, [4])])).toEqual(['refusal dora'])
    expect(codes(sampleConfig({ lora_bias: true }), sampleTensors(1))).toEqual(['refusal lora-bias', 'refusal lora-bias'])
    expect(codes(sampleConfig({ target_modules: null }), [...sampleFactors(Q, 8, 8), tensor(`${Q}.lora_B.bias`, [8])])).toEqual(['refusal lora-bias'])
    expect(codes(sampleConfig({ target_modules: null, lora_bias: true }), [...sampleFactors(Q, 8, 8), tensor(`${Q}.lora_B.bias`, [8])])).toEqual([])
  })

  it('reads full values: of modules, biases and embeddings', () => {
    const values = [
      tensor('lm_head.weight', [32, 8]), tensor(`${Q}.base_layer.bias`, [8]), tensor('model.norm.bias', [8]), tensor('model.embed_tokens.base_layer.weight', [32, 8]),
    ]
    const embedding = [tensor('model.embed_tokens.lora_embedding_A', [4, 32]), tensor('model.embed_tokens.lora_embedding_B', [8, 4])]
    const adapter = readAdapter(sampleConfig({ bias: 'all', modules_to_save: ['lm_head'], target_modules: null }), [...sampleFactors(Q, 8, 8), ...embedding, ...values])
    expect(adapter.reasons).toEqual([])
    expect(adapter.values.map(({ name, feature }) => [name, feature])).toEqual([
      ['lm_head.weight', 'modules-to-save'], ['model.embed_tokens.weight', 'embedding-copy'], [`${Q}.bias`, 'trained-bias'], ['model.norm.bias', 'trained-bias'],
    ])
  })

  it('refuses a full value under a name that PEFT would not put back', () => {
    expect(codes(sampleConfig({ target_modules: null }), [...sampleFactors(Q, 8, 8), tensor(`${Q}.bias`, [8])])).toEqual(['refusal trained-bias'])
    expect(codes(sampleConfig({ target_modules: null }), [...sampleFactors(Q, 8, 8), tensor(`${Q}.weight`, [8, 8])])).toEqual(['refusal modules-to-save'])
    expect(codes(sampleConfig({ target_modules: null }), [...sampleFactors(Q, 8, 8), tensor('k_proj.base_layer.bias', [8])])).toEqual(['refusal trained-bias'])
    expect(codes(sampleConfig({ modules_to_save: ['lm_head'] }))).toEqual(['refusal modules-to-save'])
  })

  it('knows the three biases that PEFT saves of a fully trained module', () => {
    const bias = (name: string, digest: string) => ({ ...tensor(`v.${name}`, [8]), digest })
    const config = sampleConfig({ target_modules: null, bias: 'all', modules_to_save: ['v'] })
    const three = (again: string) => [...sampleFactors(Q, 8, 8), bias('bias', 'a'), bias('modules_to_save.bias', again), bias('original_module.bias', 'c')]
    expect(readAdapter(config, three('a'))).toMatchObject({ reasons: [], values: [{ name: 'v.bias' }], repeated: [{ digest: 'a' }, { digest: 'c' }] })
    expect(codes(config, three('b'))).toEqual(['refusal trained-bias'])
  })

  it('reads trained token rows, of a list and of a dict', () => {
    const rows = (module: string, count: number) => tensor(`${module}.token_adapter.trainable_tokens_delta`, [count, 8])
    const read = (tokens: unknown, ...tensors: AdapterTensor[]) => readAdapter(sampleConfig({ trainable_token_indices: tokens }), [...sampleTensors(), ...tensors])
    expect(read([7, 3], rows('model.embed_tokens', 2)).tokens).toMatchObject([{ module: 'model.embed_tokens', indices: [7, 3], followsTies: true }])
    const both = read({ embed_tokens: [3, 5], lm_head: [7] }, rows('model.embed_tokens', 2), rows('lm_head', 1))
    expect(both.tokens).toMatchObject([{ module: 'lm_head', indices: [7] }, { module: 'model.embed_tokens', indices: [3, 5], followsTies: false }])
    expect(both.reasons).toEqual([])
    expect(read({ embed_tokens: [3, 5], lm_head: [3, 5] }, rows('model.embed_tokens', 2)).tokens).toMatchObject([{ followsTies: true }])
    for (const tokens of [[1, 2, 3], [1, 1], [-1, 2], { wte: [1, 2] }, null]) {
      expect(read(tokens, rows('model.embed_tokens', 2)).reasons, JSON.stringify(tokens)).toMatchObject([{ severity: 'refusal', code: 'trainable-tokens' }])
    }
    expect(codes(sampleConfig({ trainable_token_indices: [1] }))).toEqual(['refusal trainable-tokens'])
    expect(read([1, 2], rows('model.embed_tokens', 2), rows('lm_head', 2)).reasons).toMatchObject([{ code: 'trainable-tokens', message: expect.stringContaining('others for the same tokens') }])
  })

  it('reads convolutions and torch.nn.MultiheadAttention', () => {
    const conv = [tensor('conv.lora_A.weight', [4, 3, 5]), tensor('conv.lora_B.weight', [8, 4, 1])]
    expect(readAdapter(sampleConfig({ target_modules: null }), conv)).toMatchObject({ reasons: [], modules: [{ kind: 'convolution' }] })
    const attention = [...sampleFactors('attn', 24, 8), tensor('attn.base_layer.out_proj.lora_A.weight', [4, 8]), tensor('attn.base_layer.out_proj.lora_B.weight', [8, 4])]
    const { modules, reasons } = readAdapter(sampleConfig({ target_modules: ['attn'], rank_pattern: { attn: 4 }, r: 2 }), attention)
    expect(reasons).toEqual([])
    expect(modules.map(({ module, kind }) => [module, kind])).toEqual([['attn.out_proj', 'out-projection'], ['attn', 'linear']])
  })

  const nested = (rank: number, experts: number) => [
    tensor('model.mlp.experts.base_layer.lora_A.weight', [2 * rank * experts, 8]), tensor('model.mlp.experts.base_layer.lora_B.weight', [24, 2 * rank * experts]),
    tensor('model.mlp.experts.lora_A.weight', [rank * experts, 12]), tensor('model.mlp.experts.lora_B.weight', [8, rank * experts]),
  ]

  it('tells which bare parameter each nested pair belongs to, and its own rank', () => {
    const config = (parameters: readonly string[]) => sampleConfig({ target_modules: [], target_parameters: parameters, rank_pattern: { '.*\\.gate_up_proj': 8 }, alpha_pattern: { '.*\\.gate_up_proj': 32 } })
    const all = [['down_proj', 'gate_up_proj'], ['mlp.experts.down_proj', 'mlp.experts.gate_up_proj'], ['gate.weight', 'down_proj', 'gate_up_proj']]
    for (const parameters of all) {
      const { modules, reasons } = readAdapter(config(parameters), nested(4, 3))
      expect(reasons.filter(({ severity }) => severity === 'refusal'), `${parameters}`).toEqual([])
      expect(modules.map(({ parameter, rank, scale }) => [parameter, rank, scale])).toEqual([['gate_up_proj', 8, 4], ['down_proj', 4, 2]])
    }
    const gate = readAdapter(sampleConfig({ target_modules: ['q_proj'], target_parameters: ['gate.weight', 'down_proj', 'gate_up_proj'] }), [...sampleFactors('model.mlp.gate', 3, 8), ...sampleFactors(Q, 8, 8)])
    expect(gate.modules.map(({ module, kind, parameter }) => [module, kind, parameter])).toEqual([[Q, 'linear', null], ['model.mlp.gate', 'parameter', 'weight']])
  })

  it('refuses nested pairs whose parameters cannot be told', () => {
    expect(codes(sampleConfig({ target_modules: [] }), nested(4, 3))).toContain('refusal target-parameters')
    expect(codes(sampleConfig({ target_modules: [], target_parameters: ['experts.gate_up_proj'] }), nested(4, 3))).toContain('refusal target-parameters')
    expect(codes(sampleConfig({ target_modules: [], target_parameters: ['experts.first', 'experts.second'] }), nested(4, 3))).toContain('refusal target-parameters')
    expect(codes(sampleConfig({ target_parameters: ['experts.gate_up_proj'] }))).toEqual(['refusal target-parameters'])
    // The outer pair is gone: PEFT would leave its parameter as it was.
    expect(codes(sampleConfig({ target_modules: [], target_parameters: ['experts.gate_up_proj', 'experts.down_proj'] }), nested(4, 3).slice(0, 2))).toContain('refusal target-parameters')
  })

  it('lets ensure_weight_tying add factors for a head that target_modules does not name', () => {
    const tied = [tensor('model.embed_tokens.lora_embedding_A', [4, 32]), tensor('model.embed_tokens.lora_embedding_B', [8, 4]), ...sampleFactors('lm_head', 32, 8)]
    expect(codes(sampleConfig({ target_modules: ['embed_tokens'], ensure_weight_tying: true }), tied)).toEqual([])
    expect(codes(sampleConfig({ target_modules: ['embed_tokens'] }), tied)).toEqual(['refusal untargeted-module'])
  })
})

describe('varieties that cannot be merged', () => {
  it.each([
    [{ init_lora_weights: 'pissa_niter_16' }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'corda' }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'loftq', loftq_config: { loftq_bits: 4 } }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'lora_ga' }, 'base-changing-initialisation'],
    [{ lora_ga_config: {} }, 'base-changing-initialisation'],
    [{ corda_config: { corda_method: 'ipm' } }, 'base-changing-initialisation'],
    [{ init_lora_weights: 'brand_new' }, 'unknown-initialisation'],
    [{ alora_invocation_tokens: [1] }, 'activated-lora'],
    [{ arrow_config: {} }, 'arrow'],
    [{ kasa_config: { beta: 1 } }, 'kasa'],
    [{ monteclora_config: {} }, 'monteclora'],
    [{ use_bdlora: {} }, 'bdlora'],
    [{ use_qalora: true }, 'qalora'],
    [{ velora_config: {} }, 'velora'],
    [{ megatron_config: {} }, 'megatron'],
    [{ layer_replication: [[0, 4]] }, 'layer-replication'],
    [{ use_tomorrow: true }, 'unknown-config-key'],
    [{ use_tomorrow: false }, 'unknown-config-key'],
    [{ peft_type: 'LOHA' }, 'peft-type'],
  ])('%o is refused as %s, with a remedy', (changes, code) => {
    const { reasons } = readAdapter(sampleConfig(changes), sampleTensors())
    expect(reasons.map((reason) => `${reason.severity} ${reason.code}`)).toEqual([`refusal ${code}`])
    expect(reasons[0]?.remedy).toBeTruthy()
  })

  it.each([
    { use_tomorrow: null }, { modules_to_save: [] }, { layer_replication: null }, { loftq_config: { loftq_bits: 4 } }, { bias: 'all' }, { bias: 'lora_only' },
    { ensure_weight_tying: true }, { init_lora_weights: 'pissa' }, { init_lora_weights: 'OLoRA' }, { trainable_token_indices: [] }, { target_parameters: [] },
  ])('%o is no fault of an adapter', (changes) => {
    expect(codes(sampleConfig(changes))).toEqual([])
  })

  it.each([
    ['lm_head.modules_to_save.default.weight', 'modules-to-save'],
    [`${Q}.lora_diag`, 'kasa'],
    ['model.x.lora_magnitude_vector', 'dora'],
    ['model.x.lora_B.bias', 'lora-bias'],
    ['model.x.token_adapter.other', 'trainable-tokens'],
    [`${Q}.lora_A.default.weight`, 'unknown-adapter-tensor'],
    [`${Q}.base_layer.lora_C.weight`, 'unknown-adapter-tensor'],
  ])('the tensor %s is refused whatever the config says', (name, code) => {
    expect(codes(sampleConfig(), [...sampleTensors(), tensor(name, [4, 8])])).toEqual([`refusal ${code}`])
  })

  it('names foreign dtypes and foreign prefixes', () => {
    const [a, b] = sampleFactors(Q, 8, 8) as [AdapterTensor, AdapterTensor]
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
    ['factor-shape', (tensors: AdapterTensor[]) => tensors.with(0, { ...(tensors[0] as AdapterTensor), shape: [4, 8, 1, 1] })],
  ])('%s', (code, change) => {
    expect(() => readAdapter(sampleConfig(), change(sampleTensors()))).toThrow(AdapterError)
    expect(() => readAdapter(sampleConfig(), change(sampleTensors()))).toThrow(expect.objectContaining({ code }))
  })
})
