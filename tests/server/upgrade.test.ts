import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { and, eq, isNotNull } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { blobKey } from '../../api/ports/blob-store.ts'
import { extents, files } from '../../db/schema.ts'
import { callerOf, fileList, startTestRegistry, type Caller } from '../contract/harness.ts'
import { startPostgres, type TestPostgres } from '../setup/postgres.ts'
import { ROOT } from '../setup/registry.ts'
import { makeSchema, readJournal } from './schemas.ts'

/** The administrator's, in tests/migrations/0000.sql. */
const TOKEN = 'plm_BrmdsOQHzmqeYRw5NEMwKI3Q59ypMD7ziUBmN7KK0PQgKT'
/** What the blobs of the fixtures hold. */
const BLOBS = [
  'weights of v1', 'weights of v2, unchanged 0123456789', 'adapter weights', 'merged header|', 'changed tensor|', 'other header|', 'tensor at half weight|',
  '{"question":1}', '{"text":"a note"}', 'let go of',
]
const id = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`
const MERGED = '63595b7c05380276e857f5bad42eb28e5d2607539e661ea65f95934838c80eb3'
const HALF_MERGED = '934f717c4e76322c3f43719d6ce25a21bcb82861e17fdc010aef13971222c9fd'

const { entries: migrations } = await readJournal()
let postgres: TestPostgres
beforeAll(async () => { postgres = await startPostgres() })
afterAll(() => postgres?.stop())

function rowsOf(tag: string): Promise<string> {
  const name = `tests/migrations/${tag.slice(0, 4)}.sql`
  return readFile(`${ROOT}${name}`, 'utf8').catch(() => {
    throw new Error(`The migration ${tag} has no rows for this test: add ${name} (tests/migrations/README.md).`)
  })
}

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-test-'))
  for (const content of BLOBS) {
    const path = join(folder, blobKey(createHash('sha256').update(content).digest('hex')))
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
  }
  return folder
}

async function text(registry: Caller, path: string): Promise<string> {
  const response = await fetch(`${registry.url}${path}`, { headers: { Authorization: `Bearer ${TOKEN}` } })
  return `${response.status} ${await response.text()}`
}

const base = { org: 'lab', name: 'base' }
const triage = { org: 'lab', name: 'triage', version: '1.0.0' }

/** What is asked for of the rows that each migration's fixture holds. */
const CHECKS: Readonly<Record<string, (registry: Caller) => Promise<void>>> = {
  '0000': async (registry) => {
    expect(await registry.ok('getWhoami')).toMatchObject({ user: { name: 'admin' }, token: { scopes: ['read', 'publish', 'admin'] } })
    expect(await registry.ok('getModelVersion', { params: { ...base, version: 'v2' } })).toMatchObject({ state: 'published', parent: { reference: 'lab/base@v1' } })
    expect((await registry.ok('getModelManifest', { params: { ...base, version: 'v1' } })).tensors.length).toBeGreaterThan(3)
    expect(await text(registry, '/v1/models/lab/base/v1/files/model.safetensors')).toBe('200 weights of v1')
    expect(await text(registry, '/v1/patches/lab/triage/1.0.0/files/adapter_model.safetensors')).toBe('200 adapter weights')
    expect(await registry.ok('getPatchVersion', { params: triage })).toMatchObject({ deprecated: 'There will be a better one.', base: { reference: 'lab/base@v1' } })
    expect(await registry.ok('listDistTags', { params: { org: 'lab', name: 'triage' } })).toMatchObject({ latest: '1.0.0' })
    expect(await registry.ok('resolvePatches', { query: { patch: 'lab/triage@^1', target: 'lab/base@v2' } })).toMatchObject({ verdict: expect.stringMatching(/^portable/) })
    expect(await registry.ok('getDerivation', { params: { id: MERGED } })).toMatchObject({ state: 'ready', storage: 'materialised', storedBytes: 29, job: { state: 'succeeded' } })
    expect(await registry.ok('getReceipt', { params: { id: MERGED } })).toMatchObject({ derivation: MERGED, tensors: [{ patchNorm: 1.5 }] })
    expect(await text(registry, `/v1/derivations/${MERGED}/files/model.safetensors`)).toBe('200 merged header|changed tensor|0123456789')
    expect(await registry.ok('getJob', { params: { id: id(71) } })).toMatchObject({ state: 'failed', failure: { code: 'runner_lost' } })
    expect(await registry.ok('getModelUpload', { params: { ...base, version: 'v3' } })).toMatchObject({ state: 'draft', files: [{ path: 'model.safetensors', size: 100 }] })
  },
  '0001': async (registry) => {
    expect(await registry.ok('getAnalysis', { params: { id: id(80) } })).toMatchObject({ state: 'ready', result: { whole: { interference: -0.01 } }, job: { kind: 'analyze' } })
  },
  '0002': async (registry) => {
    expect(await text(registry, `/v1/derivations/${HALF_MERGED}/files/model.safetensors`)).toBe('200 other header|tensor at half weight|')
    expect(await registry.ok('getDerivation', { params: { id: HALF_MERGED } })).toMatchObject({ storageReason: 'It was asked for.', storedBytes: 35 })
  },
  '0003': async (registry) => {
    expect(await registry.ok('getEvaluation', { params: { id: id(81) } })).toMatchObject({ state: 'ready', result: { scores: [{ value: 0.75 }] } })
    expect(await text(registry, `/v1/evaluations/${id(81)}/files/portllm_kind.jsonl`)).toBe('200 {"question":1}')
  },
  '0004': async (registry) => {
    expect(await registry.ok('getModelVersion', { params: { ...base, version: 'v2-evolved' } })).toMatchObject({ training: { spec: { parent: 'lab/base@v2' }, record: { steps: 1 }, job: { kind: 'evolve' } } })
  },
  '0006': async (registry) => {
    expect(await text(registry, '/v1/datasets/lab/notes/1.0/files/train.jsonl')).toBe('200 {"text":"a note"}')
  },
}

it.each(migrations.map(({ tag }, index) => [tag, index + 1] as const))('a registry of the schema %s is served whole after its upgrade', async (_, count) => {
  const databaseUrl = await postgres.createDatabase()
  await makeSchema(databaseUrl, count, rowsOf)
  const started = await startTestRegistry({ databaseUrl, data: await newFolder() })
  try {
    expect(started.server.bootstrapToken).toBeNull()
    const registry = callerOf(started.url, TOKEN)
    for (const { tag: earlier } of migrations.slice(0, count)) await CHECKS[earlier.slice(0, 4)]?.(registry)
    const { db } = started.server.dependencies
    // Every merged file has its header, and a changed tensor that has a row of its own.
    const laid = await db.select({ blob: extents.blob, tensor: extents.changedTensorId }).from(extents).innerJoin(files, eq(files.id, extents.fileId)).where(and(isNotNull(files.derivationId), eq(extents.position, 1)))
    expect(laid.map(({ blob, tensor }) => [blob, typeof tensor])).toEqual(Array.from({ length: count < 3 ? 1 : 2 }, () => [null, 'string']))
    // What is new goes on top of what was there.
    await registry.ok('draftModelVersion', { params: { ...base, version: 'v4' }, body: { files: fileList({ 'config.json': 'x' }), parent: { reference: 'lab/base@v2', kind: 'continued-pretraining' } } })
    expect(started.log.filter((line) => /"level":"(warn|error|fatal)"/.test(line))).toEqual([])
  } finally {
    await started.close()
  }
})
