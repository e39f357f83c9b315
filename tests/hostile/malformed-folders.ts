import fc from 'fast-check'
import { DTYPE_BITS } from '../../patch/dtype.ts'
import { MALFORMED_ADAPTERS, VALID_ADAPTER, type AdapterSample } from '../../patch/malformed-adapters.ts'
import { writeHeader } from '../../patch/safetensors.ts'
import { sampleConfig, sampleModel } from '../../patch/sample-manifests.ts'

export type Files = Readonly<Record<string, Uint8Array>>

/** Longest data section that is made of a header; a longer one is cut off. */
const MOST_DATA = 256 * 1024

const text = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))

/** A safetensors file of zeros. */
function zeros(tensors: AdapterSample['tensors']): Buffer {
  const length = tensors.reduce((sum, { shape, dtype }) => sum + shape.reduce((product, size) => product * size, DTYPE_BITS[dtype] / 8), 0)
  return Buffer.concat([writeHeader(tensors), Buffer.alloc(Math.min(length, MOST_DATA))])
}

const patchOf = ({ config, tensors }: AdapterSample): Files => ({ 'adapter_config.json': text(config), 'adapter_model.safetensors': zeros(tensors) })

const MODEL = sampleModel({ layers: 3 })
const CONFIG = { model_type: 'llama', architectures: ['LlamaForCausalLM'], num_hidden_layers: 3, vocab_size: 32 }

/** The model that SOUND_PATCH was trained on, and SOUND_PATCH. */
export const SOUND_MODEL: Files = { 'config.json': text(CONFIG), 'model.safetensors': zeros(MODEL.tensors) }
export const SOUND_PATCH: Files = patchOf(VALID_ADAPTER)

/** A model whose weights are this file. */
export const modelOf = (weights: Uint8Array): Files => ({ 'config.json': text(CONFIG), 'model.safetensors': weights })

/** What is malformed, by what is wrong with it, and the code of the finding that must be among the reasons. */
export type Malformed = readonly [name: string, files: Files, expected: RegExp]

export function malformedAdapters(perKind: number, seed: number): Malformed[] {
  return Object.entries(MALFORMED_ADAPTERS).flatMap(([kind, arbitrary]) => fc.sample(arbitrary, { numRuns: perKind, seed }).map((sample): Malformed => [kind, patchOf(sample), /./]))
}

const configs: readonly (readonly [string, Buffer | string, RegExp])[] = [
  ...['', ' ', '{', '[]', 'null', '"LORA"', '7', '{}', '{"peft_type":null}', '{"peft_type":["LORA"]}', '{"peft_type":"LORA"}', `${VALID_ADAPTER.config}}`, `${VALID_ADAPTER.config}{}`, `\ufeff${VALID_ADAPTER.config}`, VALID_ADAPTER.config.replaceAll('"', "'"),
    VALID_ADAPTER.config.replace('{', '{"__proto__":{"r":4},'), VALID_ADAPTER.config.replace('"r":4', '"r":4,"\\u0072":4'), VALID_ADAPTER.config.replace('"r":4', '"r":04'), VALID_ADAPTER.config.replace('null', 'undefined')].map((config) => [`the config ${config.slice(0, 40)}`, config, /^invalid-(json|config)$/] as const),
  ...['0', '-1', '1.5', '1e999', 'NaN', '65537', '9007199254740993', '"4"', 'true', 'null', '[]'].map((value) => [`r: ${value}`, VALID_ADAPTER.config.replace('"r":4', `"r":${value}`), /^invalid-(json|config)$/] as const),
  ...['0', '-0', '1e999', '-1e999', 'Infinity', '"8"', 'null'].map((value) => [`lora_alpha: ${value}`, VALID_ADAPTER.config.replace('"lora_alpha":8', `"lora_alpha":${value}`), /^invalid-(json|config)$/] as const),
  ...['IA3', 'LOHA', 'lora', 'PREFIX_TUNING', '', 'x'.repeat(100)].map((type) => [`peft_type: ${type}`, sampleConfig({ peft_type: type }), /^peft-type$/] as const),
  ...([['kasa_config', {}, /^kasa$/], ['alora_invocation_tokens', [1], /^activated-lora$/], ['arrow_config', {}, /^arrow$/], ['monteclora_config', {}, /^monteclora$/], ['use_bdlora', {}, /^bdlora$/], ['use_qalora', true, /^qalora$/], ['velora_config', {}, /^velora$/], ['megatron_config', {}, /^megatron$/], ['layer_replication', [[0, 2]], /^layer-replication$/], ['corda_config', {}, /^base-changing-initialisation$/], ['init_lora_weights', 'loftq', /^base-changing-initialisation$/], ['init_lora_weights', 'magic', /^unknown-initialisation$/], ['use_dora', true, /^dora$/], ['lora_bias', true, /^lora-bias$/], ['modules_to_save', ['lm_head'], /^modules-to-save$/]] as const)
    .map(([key, value, expected]) => [`${key}: ${JSON.stringify(value)}`, sampleConfig({ [key]: value }), expected] as const),
  ['a config in UTF-16', Buffer.from(VALID_ADAPTER.config, 'utf16le'), /^(bad-character|bad-utf8)$/],
  ['a config that is no UTF-8', Buffer.concat([text(VALID_ADAPTER.config.slice(0, -1)), Uint8Array.of(0xff), text('}')]), /^bad-utf8$/],
  ['a config too long', Buffer.concat([text(VALID_ADAPTER.config), Buffer.alloc(1 << 20, ' ')]), /^file-too-large$/],
  ['brackets in a config', VALID_ADAPTER.config.replace('"layer_replication":null', `"layer_replication":${'['.repeat(250_000)}${']'.repeat(250_000)}`), /^invalid-json$/],
  ['a config of 500,000 values', VALID_ADAPTER.config.replace('"target_modules":', `"target_modules":[${'1,'.repeat(500_000)}1],"x":`), /^invalid-json$/],
  ['20,000 patterns that fit nothing', sampleConfig({ rank_pattern: Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`layers.${at}.q`, 4])), r: 8 }), /./],
  ['patterns that take long where they are tried back and forth', sampleConfig({ target_modules: '(a*)*(b|a*)*$'.repeat(50) }), /./],
]

export function malformedPatches(): Malformed[] {
  const { 'adapter_config.json': config, 'adapter_model.safetensors': weights } = SOUND_PATCH as Record<string, Buffer>
  const value = VALID_ADAPTER.tensors[0]!
  const nan = Buffer.from(weights!)
  nan.set([0, 0, 0xc0, 0x7f], nan.length - 4)
  const thousands = Array.from({ length: 3000 }, (_, i) => ({ ...value, name: `model.${i}`, shape: [1] }))
  return [
    ...configs.map(([name, content, expected]): Malformed => [name, { ...SOUND_PATCH, 'adapter_config.json': Buffer.from(content) }, expected]),
    ['no config', { 'adapter_model.safetensors': weights! }, /^missing-file$/],
    ['no weights', { 'adapter_config.json': config! }, /^missing-file$/],
    ['nothing but a text', { 'README.md': text('# Mine') }, /^missing-file$/],
    ['weights of another name', { 'adapter_config.json': config!, 'model.safetensors': weights! }, /^missing-file$/],
    ['other weights beside its own', { ...SOUND_PATCH, 'extra.safetensors': weights! }, /^unexpected-weights$/],
    ...['adapter_model.bin', 'optimizer.pt', 'x.PKL', 'deep/er/model.ckpt', 'a.joblib'].map((path): Malformed => [`the pickle ${path}`, { ...SOUND_PATCH, [path]: text('x') }, /^pickle$/]),
    ...['../x', '/x', 'a//b', 'con.txt', 'a\\b', 'x ', 'x.', 'a:b', 'README.MD', 'a\u0000b', `${'x'.repeat(256)}`, 'e\u0301', '', 'a/./b', 'adapter_config.json/x', '\u202egnp.txt'].map((path): Malformed => [`the path ${JSON.stringify(path.slice(0, 20))}`, { 'README.md': text('# Mine'), ...SOUND_PATCH, [path]: text('x') }, /^bad-path$/]),
    ['a README with U+0000', { ...SOUND_PATCH, 'README.md': text('a\0b') }, /^bad-character$/],
    ['a key of the config with U+0000', { ...SOUND_PATCH, 'adapter_config.json': text(sampleConfig({ 'x\0\ud800': 1 })) }, /^unknown-config-key$/],
    ['a README that is no UTF-8', { ...SOUND_PATCH, 'README.md': Uint8Array.of(0x23, 0xc3) }, /^bad-utf8$/],
    ['a README too long', { ...SOUND_PATCH, 'README.md': Buffer.alloc((1 << 20) + 1, 'x') }, /^file-too-large$/],
    ['a NaN in a factor', { ...SOUND_PATCH, 'adapter_model.safetensors': nan }, /^non-finite$/],
    ['thousands of tensors that no adapter has', { ...SOUND_PATCH, 'adapter_model.safetensors': zeros(thousands) }, /^unknown-adapter-tensor$/],
    ['no tensors at all', { ...SOUND_PATCH, 'adapter_model.safetensors': zeros([]) }, /^empty-adapter$/],
    ['pickled weights under the name of safetensors', { ...SOUND_PATCH, 'adapter_model.safetensors': Buffer.from('800263747263682e5f7574696c730a5f72656275696c645f74656e736f725f76320a', 'hex') }, /^safetensors-header-too-large$/],
    ['a ZIP under the name of safetensors', { ...SOUND_PATCH, 'adapter_model.safetensors': Buffer.concat([text('PK\u0003\u0004'), Buffer.alloc(60)]) }, /^safetensors-/],
    ['a Git LFS pointer', { ...SOUND_PATCH, 'adapter_model.safetensors': text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n') }, /^safetensors-header-too-large$/],
    ['a page of HTML', { ...SOUND_PATCH, 'adapter_model.safetensors': text('<!DOCTYPE html><html><body>Not found</body></html>') }, /^safetensors-header-too-large$/],
  ]
}

export function malformedModels(): Malformed[] {
  const tensor = (name: string) => ({ name, dtype: 'BF16' as const, shape: [2, 2] })
  const shards = { 'config.json': text(CONFIG), 'a.safetensors': zeros([tensor('x'), tensor('y')]), 'b.safetensors': zeros([tensor('z')]) }
  const index = (content: unknown): Files => ({ ...shards, 'model.safetensors.index.json': text(content) })
  const whole = { x: 'a.safetensors', y: 'a.safetensors', z: 'b.safetensors' }
  const config = (content: string | Buffer): Files => ({ ...SOUND_MODEL, 'config.json': Buffer.from(content) })
  return [
    ['no config', { 'model.safetensors': SOUND_MODEL['model.safetensors']! }, /^missing-config$/],
    ['no weights', { 'config.json': text(CONFIG) }, /^no-safetensors$/],
    ['a tensor in two shards', { ...index({ weight_map: whole }), 'b.safetensors': zeros([tensor('z'), tensor('x')]) }, /^duplicate-tensor$/],
    ['shards without an index', shards, /^missing-index$/],
    ...['', '{', '[]', 'null', '{}', '{"weight_map":null}', '{"weight_map":[]}', '{"weight_map":{"x":1}}', '{"weight_map":{"x":["a.safetensors"]}}', '{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}', `{"weight_map":${'{"x":'.repeat(1000)}`, '\ufeff{}'].map((content): Malformed => [`the index ${content.slice(0, 40)}`, index(content), /^bad-index$/]),
    ...[{ ...whole, q: 'a.safetensors' }, { ...whole, z: 'a.safetensors' }].map((map): Malformed => ['an index of what is not there', index({ weight_map: map }), /^index-missing-tensor$/]),
    ...['c.safetensors', '../b.safetensors', '/b.safetensors', 'b.safetensors\u0000', 'B.safetensors', '', '.', 'config.json'].map((shard): Malformed => [`an index into ${JSON.stringify(shard)}`, index({ weight_map: { ...whole, z: shard } }), /^index-missing-file$/]),
    ['an index of names that no database keeps', index(`{"weight_map":{"\\ud800":"a.safetensors","\\u0000":"\\udc00"}}`), /^index-missing-tensor$/],
    ['a tensor whose name no database keeps', modelOf(zeros([tensor('a\0')])), /^safetensors-bad-name$/],
    ['a config with U+0000', config('{"model_type":"a\\u0000"}'), /^bad-config$/],
    ['a config with half a surrogate pair', config('{"architectures":["\\ud800"]}'), /^bad-config$/],
    ['an index of less', index({ weight_map: { x: 'a.safetensors', z: 'b.safetensors' } }), /^index-unlisted-tensor$/],
    ['an index of __proto__', index(`{"weight_map":{"__proto__":"a.safetensors",${JSON.stringify(whole).slice(1)}}`), /^index-missing-tensor$/],
    ['an index of 290,000 names', index({ weight_map: Object.fromEntries(Array.from({ length: 290_000 }, (_, i) => [`t${i}`, 'a.safetensors'])) }), /^index-missing-tensor$/],
    ['an index too long', index(`{"x":"${'x'.repeat(16 << 20)}"}`), /^file-too-large$/],
    ...['', '{', '[]', 'null', '7', '{"a":1,"a":2}', '{"num_hidden_layers":-1}', '{"num_hidden_layers":1.5}', '{"num_hidden_layers":"3"}', '{"vocab_size":1e999}', '{"architectures":"x"}', '{"architectures":[1]}', '{"model_type":7}', '{"tie_word_embeddings":"yes"}', '{"text_config":[]}', '{"quantization_config":true}', `{"x":${'['.repeat(100)}${']'.repeat(100)}}`, `{"x":[${'0,'.repeat(400_000)}0]}`, `{"model_type":"${'x'.repeat(3 << 20)}"}`]
      .map((content): Malformed => [`the config ${content.slice(0, 40)}`, config(content), /^bad-config$/]),
    ['a config that is no UTF-8', config(Buffer.from([0x7b, 0xff, 0x7d])), /^bad-utf8$/],
    ['a config too long', config(Buffer.alloc((4 << 20) + 1, ' ')), /^file-too-large$/],
    ...['{', '[]', '{"chat_template":7}', '{"chat_template":[{"name":"x"}]}', '{"chat_template":{"a":"b"}}'].map((content): Malformed => [`the tokenizer's config ${content}`, { ...SOUND_MODEL, 'tokenizer_config.json': text(content) }, /^bad-config$/]),
    ['a template that is no UTF-8', { ...SOUND_MODEL, 'chat_template.jinja': Uint8Array.of(0x80) }, /^bad-utf8$/],
    ['a pickle beside the weights', { ...SOUND_MODEL, 'pytorch_model.bin': text('x') }, /^pickle$/],
  ]
}
