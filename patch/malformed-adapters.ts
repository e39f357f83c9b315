import fc from 'fast-check'
import type { AdapterTensor } from './adapter.ts'
import { sampleConfig, sampleTensors } from './sample-manifests.ts'

/** An adapter as ingest sees it: the text of its config and the header entries of its file. */
export interface AdapterSample {
  readonly config: string
  readonly tensors: readonly AdapterTensor[]
}

/** What all of them start from; it is sound on `sampleModel({ layers: 3 })`. */
export const VALID_ADAPTER: AdapterSample = { config: sampleConfig(), tensors: sampleTensors(3) }

function withConfig(change: (config: Record<string, unknown>) => Record<string, unknown>): AdapterSample {
  return { ...VALID_ADAPTER, config: JSON.stringify(change(JSON.parse(VALID_ADAPTER.config))) }
}

function withTensor(index: number, change: (tensor: AdapterTensor) => AdapterTensor[]): AdapterSample {
  const at = index % VALID_ADAPTER.tensors.length
  return { ...VALID_ADAPTER, tensors: VALID_ADAPTER.tensors.flatMap((tensor, position) => (position === at ? change(tensor) : [tensor])) }
}

const index = fc.nat(11)
const junk = fc.oneof(fc.constant([[]]), fc.constant('x'), fc.constant(-1), fc.constant(0.5), fc.constant([1, 'x']), fc.constant({ x: 'y' }))
const word = fc.stringMatching(/^[a-z_]{3,12}$/)

/** Each makes one thing of a valid adapter wrong, so that it can never be right to accept the outcome. */
export const MALFORMED_ADAPTERS: Readonly<Record<string, fc.Arbitrary<AdapterSample>>> = {
  'a config cut off': fc.nat(VALID_ADAPTER.config.length - 1).map((end) => ({ ...VALID_ADAPTER, config: VALID_ADAPTER.config.slice(0, end) })),
  'a key twice': fc.constantFrom(...Object.keys(JSON.parse(VALID_ADAPTER.config))).map((key) => ({ ...VALID_ADAPTER, config: VALID_ADAPTER.config.replace('{', `{"${key}":null,`) })),
  'a key of another type': fc.tuple(fc.constantFrom('r', 'lora_alpha', 'bias', 'use_rslora', 'fan_in_fan_out', 'use_dora', 'rank_pattern', 'alpha_pattern', 'modules_to_save', 'peft_type', 'layers_to_transform'), junk)
    .filter(([key, value]) => !(key === 'lora_alpha' && typeof value === 'number') && !(key === 'layers_to_transform' && value === -1))
    .map(([key, value]) => withConfig((config) => ({ ...config, [key]: value }))),
  'an unknown key': fc.tuple(word, junk).map(([key, value]) => withConfig((config) => ({ ...config, [`use_${key}_v2`]: value }))),
  'another rank in the config': fc.integer({ min: 1, max: 64 }).filter((rank) => rank !== 4).map((r) => withConfig((config) => ({ ...config, r }))),
  'a rank pattern that contradicts the file': fc.tuple(fc.constantFrom('q_proj', '.*v_proj', 'layers.1.self_attn.q_proj'), fc.integer({ min: 5, max: 99 })).map(([key, rank]) => withConfig((config) => ({ ...config, rank_pattern: { [key]: rank } }))),
  'a pattern that cannot be read': fc.constantFrom('(', '(?=x)', '[', 'x**', '{', '\\1', '*').map((key) => withConfig((config) => ({ ...config, alpha_pattern: { [key]: 2 } }))),
  'a factor missing': index.map((at) => withTensor(at, () => [])),
  'a factor twice': index.map((at) => withTensor(at, (tensor) => [tensor, tensor])),
  'a factor with another rank': fc.tuple(index, fc.integer({ min: 1, max: 2 ** 31 })).filter(([, rank]) => rank !== 4)
    .map(([at, rank]) => withTensor(at, (tensor) => [{ ...tensor, shape: tensor.shape.map((size, axis) => (axis === (tensor.name.includes('lora_A') ? 0 : 1) ? rank : size)) }])),
  'a factor for another width': fc.tuple(index, fc.integer({ min: 1, max: 2 ** 31 }))
    .map(([at, width]) => withTensor(at, (tensor) => [{ ...tensor, shape: tensor.shape.map((size, axis) => (axis === (tensor.name.includes('lora_A') ? 1 : 0) ? width + size : size)) }])),
  'a factor with other dimensions': fc.tuple(index, fc.constantFrom([], [4], [4, 8, 1], [4, 8, 1, 1], [0, 0])).map(([at, shape]) => withTensor(at, (tensor) => [{ ...tensor, shape }])),
  'a factor of another dtype': fc.tuple(index, fc.constantFrom('I8', 'F64', 'F8_E4M3', 'BOOL', 'C64') as fc.Arbitrary<AdapterTensor['dtype']>).map(([at, dtype]) => withTensor(at, (tensor) => [{ ...tensor, dtype }])),
  'a factor of a module that the target lacks': fc.tuple(index, word).map(([at, name]) => withTensor(at, (tensor) => [{ ...tensor, name: tensor.name.replace('self_attn', `x${name}`) }])),
  'a tensor of no known kind': fc.tuple(word, fc.constantFrom('', 'base_model.', 'base_model.model.', 'base_model.model.model.layers.0.self_attn.q_proj.')).map(([name, prefix]) => ({ ...VALID_ADAPTER, tensors: [...VALID_ADAPTER.tensors, { name: `${prefix}${name}`, dtype: 'F32', shape: [1] }] })),
  'a module with a path that is none': fc.tuple(index, fc.constantFrom('..', ' ', '/', '\u0000', '\\', '*', '$&')).map(([at, odd]) => withTensor(at, (tensor) => [{ ...tensor, name: tensor.name.replace('self_attn', () => odd) }])),
}
