import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eq } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { changedTensors } from '../../db/schema.ts'
import { newOrganization, sha256, startTestRegistry, upload, type TestRegistry } from '../contract/harness.ts'
import { ROOT } from '../setup/registry.ts'

// No merge core runs in a Worker: what a merge changes is kept, and what was to be computed is refused with what to do.
let registry: TestRegistry
let org: string
const WAIT = { Prefer: 'wait=60' }

beforeAll(async () => {
  registry = await startTestRegistry({ startRunners: true })
  org = await newOrganization(registry)
  await publishFixture('model', 'llama/base', 'tiny', '1.0')
  await publishFixture('patch', 'llama/patch-kind', 'kind', '1.0.0', { base: `${org}/tiny@1.0` })
})
afterAll(() => registry.close())

async function publishFixture(kind: 'model' | 'patch', fixture: string, name: string, version: string, more: Record<string, unknown> = {}): Promise<void> {
  const folder = join(ROOT, 'tests/fixtures', fixture)
  const files = Object.fromEntries(await Promise.all((await readdir(folder)).map(async (path) => [path, await readFile(join(folder, path))] as const)))
  const { job } = await upload(registry, { kind, org, name, version, files, ...more })
  for (let state = 'queued'; state !== 'succeeded'; ) {
    state = (await registry.ok('getJob', { params: { id: job.id } })).state
    if (state === 'failed') throw new Error(`${name} was not published`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

function getMerged(weight: number, more: Record<string, string> = {}) {
  return registry.call('getMerged', { params: { org, name: 'tiny', version: '1.0' }, query: { patch: `${org}/kind:${weight}`, ...more }, headers: WAIT })
}

it('a merged model is materialised, and its bytes are those of its receipt', async () => {
  const { status, body: view } = await getMerged(1)
  expect([status, view.state, view.storage, view.storageReason]).toEqual([200, 'ready', 'materialised', expect.stringContaining('No merge core runs where this registry answers')])
  const { tensors } = await registry.ok('getDerivationManifest', { params: { id: view.id } })
  for (const { path } of view.files.filter(({ changed }: any) => changed)) {
    const bytes = Buffer.from(await (await fetch(`${registry.url}/v1/derivations/${view.id}/files/${path}`, { headers: { Authorization: `Bearer ${registry.adminToken}` } })).arrayBuffer())
    for (const { name, file, offset, length, digest } of tensors) if (file === path) expect([name, `sha256:${sha256(bytes.subarray(offset, offset + length))}`]).toEqual([name, digest])
  }
})

it('to be computed is refused, when it is asked for and afterwards', async () => {
  const asked = await getMerged(0.5, { storage: 'computed' })
  expect([asked.status, asked.body.error.code]).toEqual([503, 'unavailable'])
  const { body: view } = await getMerged(0.25)
  const set = await registry.call('setDerivationStorage', { params: { id: view.id }, body: { storage: 'computed' } })
  expect([set.status, set.body.error.code]).toEqual([503, 'unavailable'])
  expect((await registry.ok('getDerivation', { params: { id: view.id } })).storage).toBe('materialised')
})

it('what a server of the same registry computes is answered with how to have it here', async () => {
  const { body: view } = await getMerged(0.75)
  await registry.server.dependencies.db.update(changedTensors).set({ blob: null }).where(eq(changedTensors.derivationId, view.id))
  const { path } = view.files.find(({ changed }: any) => changed)
  const file = await registry.call('getDerivationFile', { params: { id: view.id, path } })
  expect([file.status, file.body.error.code, file.body.error.message]).toEqual([503, 'unavailable', expect.stringContaining(`PUT /v1/derivations/${view.id}/storage`)])
  expect((await registry.call('getDerivationPlan', { params: { id: view.id } })).status).toBe(503)
})
