import { afterAll, describe, expect, test } from 'vitest'
import { CoreError, loadCore } from '../core/core.ts'
import { sha256Hex, startObjectServer } from '../object-server.ts'
import type { IngestSpec, Progress } from '../protocol.ts'
import type { Dtype } from '../../patch/dtype.ts'
import { sampleConfig } from '../../patch/sample-manifests.ts'
import { writeHeader, type TensorInfo } from '../../patch/safetensors.ts'
import { runIngest } from './ingest.ts'

const server = await startObjectServer()
afterAll(() => server.close())
const core = await loadCore()
const signal = new AbortController().signal

interface Tensor {
  name: string
  dtype: Dtype
  shape: number[]
  bytes: Buffer
}

/** A tensor of finite values. */
function tensor(name: string, dtype: Dtype, shape: number[]): Tensor {
  const width = { F32: 4, BF16: 2, U8: 1 }[dtype as string]!
  const bytes = Buffer.alloc(shape.reduce((a, b) => a * b, width))
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + name.length + (i >> 11)) & 63
  return { name, dtype, shape, bytes }
}

function safetensors(...tensors: Tensor[]): Buffer {
  return Buffer.concat([writeHeader(tensors, { format: 'pt' }), ...tensors.map(({ bytes }) => bytes)])
}

function ingest(subject: IngestSpec['subject'], files: Record<string, Buffer | string>, declared: Record<string, { sha256?: string; size?: number }> = {}, progress: Progress[] = [], by = core) {
  const spec: IngestSpec = {
    kind: 'ingest',
    subject,
    files: Object.entries(files).map(([path, content]) => {
      const bytes = Buffer.from(content)
      const key = `/${sha256Hex(bytes)}`
      server.objects.set(key, bytes)
      return { path, size: bytes.byteLength, sha256: sha256Hex(bytes), ...declared[path], get: server.get(key) }
    }),
  }
  return runIngest(spec, { core: by, signal, report: (now) => progress.push(now) })
}

/** What the core reads, changed, in two parts. */
async function* reading(bytes: Uint8Array, size: number, change: (read: readonly TensorInfo[]) => readonly TensorInfo[]): AsyncGenerator<readonly TensorInfo[]> {
  const all: TensorInfo[] = []
  for await (const part of core.readHeader(bytes, size)) all.push(...part)
  const changed = change(all)
  yield changed.slice(0, 1)
  yield changed.slice(1)
}

async function rejection(...args: Parameters<typeof ingest>): Promise<string[]> {
  const result = await ingest(...args)
  if (!('rejection' in result)) return []
  for (const { message } of result.rejection) expect(message.length).toBeGreaterThan(20)
  return result.rejection.map(({ code, file, tensor }) => [code, file, tensor].filter((part) => part !== undefined).join(' ')).sort()
}

// The second begins at an odd byte; the third is longer than a tile and does not end with one.
const small = tensor('model.small', 'U8', [3])
const odd = tensor('model.odd', 'F32', [5, 3])
const large = tensor('model.large', 'BF16', [1_700_001])
const config = JSON.stringify({ model_type: 'llama', architectures: ['LlamaForCausalLM'], num_hidden_layers: 2, vocab_size: 9 })
const model = { 'config.json': config, 'model.safetensors': safetensors(small, odd, large), 'empty.txt': '' }

const a = tensor('model.a', 'F32', [2, 2])
const b = tensor('model.b', 'F32', [2, 2])
const index = (map: Record<string, string>) => JSON.stringify({ metadata: { total_size: 32 }, weight_map: map })
const sharded = (map: Record<string, string>) => ({
  'config.json': config, 'model-1.safetensors': safetensors(a), 'model-2.safetensors': safetensors(b), 'model.safetensors.index.json': index(map),
})

const factors = [tensor('base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight', 'F32', [4, 8]), tensor('base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight', 'F32', [8, 4])]
const adapterConfig = sampleConfig({ target_modules: ['q_proj'] })
const patch = { 'adapter_config.json': adapterConfig, 'adapter_model.safetensors': safetensors(...factors), 'README.md': '# Tränierte\n' }

describe('a model', () => {
  test('is described byte by byte', async () => {
    const progress: Progress[] = []
    const result = await ingest('model', { ...model, 'README.md': '# A model' }, {}, progress)
    const offset = model['model.safetensors'].byteLength - small.bytes.length - odd.bytes.length - large.bytes.length
    expect(result).toMatchObject({
      readme: '# A model',
      manifest: {
        format: 'portllm.model/1',
        facts: { modelType: 'llama', layerCount: 2, vocabularySize: 9 },
        tensors: [
          { name: 'model.small', dtype: 'U8', shape: [3], file: 'model.safetensors', offset, length: 3, digest: `sha256:${sha256Hex(small.bytes)}` },
          { name: 'model.odd', offset: offset + 3, length: 60, digest: `sha256:${sha256Hex(odd.bytes)}` },
          { name: 'model.large', offset: offset + 63, length: 3_400_002, digest: `sha256:${sha256Hex(large.bytes)}` },
        ],
      },
    })
    if (!('manifest' in result)) throw new Error('rejected')
    expect(result.manifest.files[2]).toEqual({ path: 'empty.txt', size: 0, etag: sha256Hex(Buffer.alloc(0)) })
    expect(progress.at(-1)).toEqual({ phase: 'verifying', done: progress[0]!.total, total: progress[0]!.total, unit: 'bytes' })
  })

  test('may be sharded, also in a folder', async () => {
    expect(await rejection('model', sharded({ 'model.a': 'model-1.safetensors', 'model.b': 'model-2.safetensors' }))).toEqual([])
    const files = sharded({ 'model.a': 'model-1.safetensors', 'model.b': 'model-2.safetensors' })
    expect(await rejection('model', Object.fromEntries(Object.entries(files).map(([path, content]) => [path === 'config.json' ? path : `inner/${path}`, content])))).toEqual([])
  })

  test('is rejected for every reason at once', async () => {
    const bad = { ...large, bytes: Buffer.from(large.bytes) }
    bad.bytes.writeUInt16LE(0x7f80, 3_400_000)
    bad.bytes.writeUInt16LE(0x7fc1, 0)
    const files = { 'model.safetensors': safetensors(small, bad), 'weights.BIN': 'x', 'a:b': 'y', 'tokenizer_config.json': '{"a":1,"a":2}' }
    expect(await rejection('model', files, { 'weights.BIN': { sha256: '0'.repeat(64) }, 'a:b': { size: 5 } })).toEqual([
      'bad-config tokenizer_config.json', 'bad-path', 'digest-mismatch weights.BIN', 'missing-config', 'non-finite model.safetensors model.large', 'pickle weights.BIN', 'size-mismatch a:b',
    ])
  })

  test('counts the values that are not finite, wherever tiles end', async () => {
    const bad = { ...large, bytes: Buffer.from(large.bytes) }
    for (const at of [0, 2_097_150, 2_097_152, 3_400_000]) bad.bytes.writeUInt16LE(0xff80, at)
    const result = await ingest('model', { ...model, 'model.safetensors': safetensors(small, bad) })
    expect(result).toMatchObject({ rejection: [{ code: 'non-finite', message: expect.stringContaining(' 4 values') }] })
  })

  test('counts what was read, also where counting is slower than reading', async () => {
    const bad = { ...large, bytes: Buffer.from(large.bytes) }
    for (const at of [0, 4, 3_400_000]) bad.bytes.writeUInt16LE(0xff80, at)
    const bytes = safetensors(small, bad)
    server.objects.set('/slow', bytes)
    const slow: typeof core = { ...core, countNonFinite: async (tile, dtype) => {
      await new Promise((resolve) => setTimeout(resolve, 50))
      return core.countNonFinite(tile, dtype)
    } }
    const spec: IngestSpec = { kind: 'ingest', subject: 'model', files: [{ path: 'model.safetensors', size: bytes.byteLength, sha256: sha256Hex(bytes), get: server.get('/slow') }] }
    const result = await runIngest(spec, { core: slow, signal, report: () => undefined })
    expect(result).toMatchObject({ rejection: expect.arrayContaining([expect.objectContaining({ code: 'non-finite', message: expect.stringContaining(' 3 values') })]) })
  })

  test.each<[string, typeof core.readHeader, RegExp]>([
    ['nothing', async function* () { throw new CoreError('invalid', 'it is odd') }, /the merge core reads the header otherwise \(it is odd\)/],
    ['less', (bytes, size) => reading(bytes, size, (read) => read.slice(1)), /otherwise \(2 tensors instead of 3\)|"model.small".*is "model.odd"/],
    ['more', (bytes, size) => reading(bytes, size, (read) => [...read, read[0]!]), /otherwise \(4 tensors instead of 3\)/],
    ['another name', (bytes, size) => reading(bytes, size, (read) => read.map((one, i) => (i === 1 ? { ...one, name: 'x' } : one))), /"model.odd".*F32 \[5,3\] at bytes \d+ to \d+ is "x", F32/],
    ['another dtype', (bytes, size) => reading(bytes, size, (read) => read.map((one) => ({ ...one, dtype: 'U8' as const }))), /"model.odd".*is "model.odd", U8/],
    ['another shape', (bytes, size) => reading(bytes, size, (read) => read.map((one) => ({ ...one, shape: one.shape.toReversed() }))), /"model.odd".*is "model.odd", F32 \[3,5\]/],
    ['another place', (bytes, size) => reading(bytes, size, (read) => read.map((one) => ({ ...one, end: one.end + 1 }))), /"model.small".*bytes \d+ to \d+ is "model.small", U8/],
  ])('is rejected where the core reads %s in its header', async (_name, readHeader, message) => {
    const result = await ingest('model', model, {}, [], { ...core, readHeader })
    expect(result).toMatchObject({ rejection: [{ code: 'safetensors-read-differently', file: 'model.safetensors', message: expect.stringMatching(message) }] })
  })

  test.each<[string, Record<string, string>, string[]]>([
    ['a tensor that its shard lacks', { 'model.a': 'model-2.safetensors', 'model.b': 'model-2.safetensors' }, ['index-missing-tensor model.safetensors.index.json model.a', 'index-unlisted-tensor model-1.safetensors model.a']],
    ['a tensor of no shard', { 'model.a': 'model-1.safetensors', 'model.b': 'model-2.safetensors', 'model.c': 'model-2.safetensors' }, ['index-missing-tensor model.safetensors.index.json model.c']],
    ['a shard that is not there', { 'model.a': 'model-1.safetensors', 'model.b': 'model-3.safetensors' }, ['index-missing-file model.safetensors.index.json model.b', 'index-unlisted-tensor model-2.safetensors model.b']],
    ['one tensor less', { 'model.a': 'model-1.safetensors' }, ['index-unlisted-tensor model-2.safetensors model.b']],
    ['a way out of the folder', { 'model.a': 'model-1.safetensors', 'model.b': '../model-2.safetensors' }, ['index-missing-file model.safetensors.index.json model.b', 'index-unlisted-tensor model-2.safetensors model.b']],
    ['a file from the root', { 'model.a': 'model-1.safetensors', 'model.b': '/model-2.safetensors' }, ['index-missing-file model.safetensors.index.json model.b', 'index-unlisted-tensor model-2.safetensors model.b']],
    ['a file by a detour', { 'model.a': 'model-1.safetensors', 'model.b': 'x/../model-2.safetensors' }, ['index-missing-file model.safetensors.index.json model.b', 'index-unlisted-tensor model-2.safetensors model.b']],
    ['__proto__', { 'model.a': 'model-1.safetensors', 'model.b': 'model-2.safetensors', ['__proto__']: 'model-2.safetensors' }, ['index-missing-tensor model.safetensors.index.json __proto__']],
  ])('is rejected where its index names %s', async (_name, map, expected) => {
    expect(await rejection('model', sharded(map))).toEqual(expected)
  })

  test('is rejected without weights, without an index, with a bad one, with one name twice', async () => {
    expect(await rejection('model', { 'config.json': config })).toEqual(['no-safetensors'])
    const { 'model.safetensors.index.json': _index, ...without } = sharded({})
    expect(await rejection('model', without)).toEqual(['missing-index'])
    expect(await rejection('model', { ...without, 'model-2.safetensors': safetensors(a) })).toEqual(['duplicate-tensor model-2.safetensors model.a', 'missing-index'])
    expect(await rejection('model', { ...without, 'model.safetensors.index.json': '{"weight_map":[]}' })).toContain('bad-index model.safetensors.index.json')
  })

  test('is rejected where a safetensors file is malformed, and its other bytes are still hashed', async () => {
    const whole = safetensors(a, b)
    const cut = whole.subarray(0, -3)
    expect(await rejection('model', { 'config.json': config, 'model.safetensors': cut })).toEqual(['safetensors-truncated model.safetensors'])
    expect(await rejection('model', { 'config.json': config, 'model.safetensors': Buffer.concat([whole, Buffer.alloc(3_000_000)]) }, { 'model.safetensors': { sha256: 'f'.repeat(64) } })).toEqual(['digest-mismatch model.safetensors', 'safetensors-trailing-bytes model.safetensors'])
    expect(await rejection('model', { 'config.json': config, 'model.safetensors': '' })).toEqual(['safetensors-truncated model.safetensors'])
    expect(await rejection('model', { 'config.json': config, 'model.safetensors': Buffer.alloc(64, 0xff) })).toEqual(['safetensors-header-too-large model.safetensors'])
  })

  test('with hundreds of like problems names the first ones and counts the rest', async () => {
    const map = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`t${i}`, 'model-1.safetensors']))
    const result = await ingest('model', sharded({ 'model.a': 'model-1.safetensors', 'model.b': 'model-2.safetensors', ...map }))
    expect(result).toMatchObject({ rejection: expect.arrayContaining([{ code: 'index-missing-tensor', message: expect.stringMatching(/^280 more/) }]) })
    expect('rejection' in result && result.rejection).toHaveLength(21)
  })
})

describe('a patch', () => {
  test('is described with the text of its config', async () => {
    const result = await ingest('patch', patch)
    expect(result).toMatchObject({ readme: '# Tränierte\n', manifest: { format: 'portllm.patch/1', adapterConfig, tensors: factors.map(({ name, bytes }) => ({ name, digest: `sha256:${sha256Hex(bytes)}` })) } })
  })

  test('is rejected where it lacks a file, holds other weights, or cannot be merged', async () => {
    expect(await rejection('patch', { 'README.md': 'x' })).toEqual(['missing-file adapter_config.json', 'missing-file adapter_model.safetensors'])
    expect(await rejection('patch', { ...patch, 'model.safetensors': safetensors(a), 'training_args.bin': 'x' })).toEqual(['pickle training_args.bin', 'unexpected-weights model.safetensors'])
    expect(await rejection('patch', { ...patch, 'adapter_config.json': sampleConfig({ target_modules: ['q_proj'], kasa_config: { beta: 1 } }) })).toEqual(['kasa'])
    expect(await rejection('patch', { ...patch, 'adapter_config.json': '{' })).toEqual(['invalid-json adapter_config.json'])
    expect(await rejection('patch', { ...patch, 'adapter_config.json': Buffer.from([0x7b, 0xff, 0x7d]) })).toEqual(['bad-utf8 adapter_config.json'])
    expect(await rejection('patch', { ...patch, 'adapter_model.safetensors': safetensors(factors[0]!) })).toEqual([`unpaired-factor adapter_model.safetensors ${factors[0]!.name}`])
  })
})

describe('a dataset', () => {
  test('is described by its files', async () => {
    const files = { 'train.jsonl': '{"text":"a"}\n', 'notes/validation.csv': 'text\nb\n', 'README.md': '# Notes\n' }
    expect(await ingest('dataset', files)).toEqual({
      readme: '# Notes\n',
      manifest: { format: 'portllm.dataset/1', files: Object.entries(files).map(([path, text]) => ({ path, size: text.length, etag: sha256Hex(Buffer.from(text)) })) },
    })
  })

  test('is rejected where it holds no data, other things, or other bytes than were declared', async () => {
    expect(await rejection('dataset', { 'README.md': 'x' })).toEqual(['no-data'])
    expect(await rejection('dataset', { 'train.jsonl': '{}', 'load.py': 'x' })).toEqual(['not-data load.py'])
    expect(await rejection('dataset', { 'train.jsonl': '{}', 'train.pkl': 'x' })).toEqual(['not-data train.pkl', 'pickle train.pkl'])
    expect(await rejection('dataset', { 'train.jsonl': '{}' }, { 'train.jsonl': { sha256: '0'.repeat(64) } })).toEqual(['digest-mismatch train.jsonl'])
  })
})

test('an upload that cannot be read is a failure to be tried again, not a rejection', async () => {
  const spec: IngestSpec = { kind: 'ingest', subject: 'model', files: [{ path: 'config.json', size: 2, sha256: '0'.repeat(64), get: server.get('/nothing') }] }
  await expect(runIngest(spec, { core, signal, report: () => undefined })).rejects.toMatchObject({ code: 'storage_refused', retryable: true })
})
