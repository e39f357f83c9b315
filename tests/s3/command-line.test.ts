import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { writeLlamaModel } from '../../bench/llama-model.ts'
import { startFaultyProxy, type FaultyProxy } from '../cli/faulty-proxy.ts'
import { callerOf, sha256 } from '../contract/harness.ts'
import { createDatabase } from '../setup/postgres.ts'
import { portllm, ROOT, runCommand, startRegistry, type Registry } from '../setup/registry.ts'
import { createBucket, type TestBucket } from '../setup/s3.ts'

const MIB = 1024 * 1024

let folder: string
let bucket: TestBucket
/** Stands before the bucket: its address is in every signed URL. */
let proxy: FaultyProxy
let onServer: Registry
let embedded: Registry

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-s3-'))
  bucket = await createBucket()
  proxy = await startFaultyProxy()
  proxy.upstream = bucket.settings.endpoint!
  const environment = {
    DATABASE_URL: await createDatabase(process.env['PORTLLM_TEST_POSTGRES_URL']!),
    PORTLLM_S3_BUCKET: bucket.settings.bucket,
    PORTLLM_S3_ENDPOINT: bucket.settings.endpoint!,
    PORTLLM_S3_PUBLIC_ENDPOINT: proxy.url,
    PORTLLM_S3_REGION: bucket.settings.region,
    PORTLLM_S3_ACCESS_KEY_ID: bucket.settings.accessKeyId!,
    PORTLLM_S3_SECRET_ACCESS_KEY: bucket.settings.secretAccessKey!,
  }
  ;[onServer, embedded] = await Promise.all([startRegistry(join(folder, 'server'), { environment }), startRegistry(join(folder, 'embedded'))])
  await Promise.all([publishFixtures(onServer), publishFixtures(embedded)])
})

afterAll(async () => {
  await Promise.all([onServer?.stop(), embedded?.stop()])
  await proxy?.close()
  await bucket?.remove()
  await rm(folder, { recursive: true, force: true })
})

const options = () => ({ configFolder: join(folder, 'config') })

async function publishFixtures(registry: Registry): Promise<void> {
  const fixture = (name: string) => join(ROOT, 'tests/fixtures/llama', name)
  await portllm(registry, ['org', 'create', 'lab'], options())
  await portllm(registry, ['publish', fixture('base'), '--name', 'lab/tiny', '--version', '1.0'], options())
  await portllm(registry, ['publish', fixture('evolved'), '--name', 'lab/tiny', '--version', '2.0', '--parent', 'lab/tiny@1.0'], options())
  await portllm(registry, ['publish', fixture('patch-kind'), '--name', 'lab/kind', '--version', '1.0.0', '--base', 'lab/tiny@1.0'], options())
}

async function digestsOf(path: string): Promise<Record<string, string>> {
  const names = (await readdir(path)).filter((name) => name !== 'portllm.lock').sort()
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, sha256(await readFile(join(path, name)))] as const)))
}

async function ask(path: string, headers: Record<string, string> = {}): Promise<Response> {
  const response = await fetch(`${onServer.url}${path}`, { headers: { Authorization: `Bearer ${onServer.token}`, ...headers } })
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return response
}

it('a merged model has the bytes of the embedded registry: computed and stored, whole, in ranges and by its plan', async () => {
  expect(await (await ask('/v1/health')).json()).toMatchObject({ deployment: 'server' })
  const get = async (registry: Registry, storage: string) => {
    const output = join(folder, `${registry === onServer ? 'server' : 'embedded'}-${storage}`)
    const got = await portllm(registry, ['get', 'lab/tiny@2.0', '--patch', storage === 'computed' ? 'lab/kind' : 'lab/kind:0.5', '--storage', storage, '--output', output], options())
    expect(got.storage).toBe(storage)
    return { output, derivation: got.derivation as string, digests: await digestsOf(output) }
  }
  for (const storage of ['computed', 'materialised']) {
    const [there, here] = [await get(onServer, storage), await get(embedded, storage)]
    expect(there.derivation).toBe(here.derivation)
    expect(there.digests).toEqual(here.digests)

    const plan = (await (await ask(`/v1/derivations/${there.derivation}/plan`)).json()) as any
    for (const file of plan.files) {
      const bytes = await readFile(join(there.output, file.path))
      const [from, to] = [Math.floor(bytes.length / 3), Math.floor(bytes.length / 2)]
      const range = await ask(`/v1/derivations/${there.derivation}/files/${file.path}`, { Range: `bytes=${from}-${to}` })
      expect([range.status, sha256(new Uint8Array(await range.arrayBuffer()))]).toEqual([206, sha256(bytes.subarray(from, to + 1))])
      const pieces = await Promise.all(file.extents.map(async ({ blob, url, headers }: any) => {
        expect(url.startsWith(blob === null ? onServer.url : `${proxy.url}/${bucket.settings.bucket}/blobs/sha256/`)).toBe(true)
        return Buffer.from(await (await fetch(url, { headers })).arrayBuffer())
      }))
      expect(sha256(Buffer.concat(pieces))).toBe(sha256(bytes))
    }
    expect(plan.files.some(({ extents }: any) => extents.some(({ blob }: any) => blob === null))).toBe(storage === 'computed')
  }
})

it('a publish of a large file goes on with the parts that had not arrived when it was killed', async () => {
  const model = join(folder, 'large')
  await writeLlamaModel(model, { hidden: 1024, layers: 1, heads: 16, keyValueHeads: 4, intermediate: 1024, vocabulary: 33_000, shards: 1 })
  const args = ['publish', model, '--name', 'lab/large', '--version', '1.0', '--concurrency', '1']
  const isPart = (path: string) => path.includes('partNumber=')
  let parts = 0
  const stalled = new Promise<void>((resolve) => {
    proxy.decide = ({ method, path }) => {
      if (method !== 'PUT' || !isPart(path) || ++parts < 3) return 'pass'
      resolve()
      return 'stall'
    }
  })
  const child = spawn(process.execPath, [`${ROOT}cli/main.ts`, ...args], { stdio: 'ignore', env: { ...process.env, XDG_CONFIG_HOME: join(folder, 'config'), PORTLLM_REGISTRY: onServer.url, PORTLLM_TOKEN: onServer.token } })
  const closed = new Promise((resolve) => child.once('close', resolve))
  await stalled
  child.kill('SIGKILL')
  await closed

  proxy.reset()
  const published = await portllm(onServer, args, options())
  expect(proxy.requests.filter(({ method, path }) => method === 'PUT' && isPart(path)).length).toBe(1)
  expect(published.sentBytes).toBeLessThan(published.bytes - 2 * 64 * MIB + 1)
  const name = (await readdir(model)).find((path) => path.endsWith('.safetensors'))!
  const served = await ask(`/v1/models/lab/large/1.0/files/${name}`)
  expect(sha256(new Uint8Array(await served.arrayBuffer()))).toBe(sha256(await readFile(join(model, name))))
})

it('wrong bytes of a part, which no store refuses, are found when the version is verified', async () => {
  const content = Buffer.alloc(64 * MIB + 5, 'x')
  const params = { org: 'lab', name: 'wrong', version: '1.0' }
  const { ok } = callerOf(onServer.url, onServer.token)
  const draft = await ok('draftModelVersion', { params, body: { files: [{ path: 'weights.bin', size: content.length, sha256: sha256(content) }] } })
  content[7] = 0
  for (const { url, headers, offset, length } of draft.files[0].parts) expect((await fetch(url, { method: 'PUT', headers, body: content.subarray(offset, offset + length) })).status).toBe(200)
  const { job } = await ok('completeModelUpload', { params })
  await runCommand(onServer, ['jobs', 'wait', job.id], options())
  const { state, rejection } = await ok('getModelUpload', { params })
  expect([state, rejection]).toEqual(['rejected', expect.arrayContaining([expect.objectContaining({ code: 'digest-mismatch', file: 'weights.bin' })])])
})
