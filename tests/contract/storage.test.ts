import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { and, eq, like } from 'drizzle-orm'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { audit, changedTensors } from '../../db/schema.ts'
import { blobKey } from '../../api/ports/blob-store.ts'
import { collectGarbage } from '../../api/services/garbage/collect.ts'
import { ROOT } from '../setup/registry.ts'
import { blobStore, newOrganization, newToken, newUser, sha256, startTestRegistry, upload, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let org: string
const WAIT = { Prefer: 'wait=60' }

beforeAll(async () => {
  registry = await startTestRegistry({ startRunners: true })
  org = await newOrganization(registry)
  await publishFixture('model', 'llama/base', 'tiny', '1.0')
  await publishFixture('model', 'llama/evolved', 'tiny', '2.0', { parent: { reference: `${org}/tiny@1.0`, kind: 'continued-pretraining' } })
  await publishFixture('patch', 'llama/patch-kind', 'kind', '1.0.0', { base: `${org}/tiny@1.0` })
  await publishFixture('patch', 'llama/patch-speech', 'speech', '1.0.0', { base: `${org}/tiny@1.0` })
})
afterAll(() => registry.close())

async function publishFixture(kind: 'model' | 'patch', fixture: string, name: string, version: string, more: Record<string, unknown> = {}): Promise<void> {
  const folder = join(ROOT, 'tests/fixtures', fixture)
  const files = Object.fromEntries(await Promise.all((await readdir(folder)).map(async (path) => [path, await readFile(join(folder, path))] as const)))
  const { job } = await upload(registry, { kind, org, name, version, files, ...more })
  await jobEnd(job.id)
}

async function jobEnd(id: string): Promise<any> {
  for (;;) {
    const job = await registry.ok('getJob', { params: { id } })
    if (job.state !== 'queued' && job.state !== 'running') return job
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** A merged model that is ready: of the two patches, at weights that no other test asks for. */
function merged(weight: number, storage?: string): Promise<any> {
  const query = `patch=${org}/kind:${weight}&patch=${org}/speech:${weight}${storage === undefined ? '' : `&storage=${storage}`}`
  return fetch(`${registry.url}/v1/models/${org}/tiny/2.0/merged?${query}`, { headers: { ...WAIT, Authorization: `Bearer ${registry.adminToken}` } }).then((response) => response.json())
}

function setStorage(id: string, storage: string, token?: string | null) {
  return registry.call('setDerivationStorage', { params: { id }, body: { storage }, headers: WAIT, ...(token !== undefined && { token }) })
}

async function getBytes(id: string, path: string, headers: Record<string, string> = {}): Promise<Buffer> {
  const response = await fetch(`${registry.url}/v1/derivations/${id}/files/${path}`, { headers })
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return Buffer.from(await response.arrayBuffer())
}

function getAll(view: any): Promise<Map<string, Buffer>> {
  return Promise.all(view.files.map(async ({ path }: any) => [path, await getBytes(view.id, path)] as const)).then((files) => new Map(files as [string, Buffer][]))
}

function tensorRows(id: string) {
  return registry.server.dependencies.db.select().from(changedTensors).where(eq(changedTensors.derivationId, id))
}

/** First bytes of the data of each changed file: what a header alone takes. */
async function headerBytes(view: any): Promise<number> {
  const { tensors } = await registry.ok('getDerivationManifest', { params: { id: view.id } })
  return view.files.filter(({ changed }: any) => changed).reduce((sum: number, { path }: any) => sum + Math.min(...tensors.filter(({ file }: any) => file === path).map(({ offset }: any) => offset)), 0)
}

describe('a computed merged model', () => {
  it('is chosen by itself, keeps its headers alone, and says why', async () => {
    const view = await merged(1)
    expect(view).toMatchObject({ state: 'ready', storage: 'computed', storageReason: expect.stringMatching(/total rank .*at most 24/) })
    expect(view.storedBytes).toBe(await headerBytes(view))
    const rows = await tensorRows(view.id)
    expect(rows.length).toBe(view.receipt.tensors.length)
    for (const { blob, digest } of rows) expect([blob, await blobStore(registry).size(blobKey(digest.slice(7)))]).toEqual([null, null])
    expect(await (await fetch(view.page)).text()).toMatch(/computed<\/span>.*kept for it alone/s)
  })

  it('has the digests of its receipt, and the bytes of the materialised one in every range', async () => {
    const view = await merged(0.75)
    const computed = await getAll(view)
    const { tensors } = await registry.ok('getDerivationManifest', { params: { id: view.id } })
    for (const { name, file, offset, length, digest } of tensors) expect(`sha256:${sha256(computed.get(file)!.subarray(offset, offset + length))}`, name).toBe(digest)

    const kept = await setStorage(view.id, 'materialised')
    expect([kept.status, kept.body.storage, kept.body.storageReason]).toEqual([200, 'materialised', 'It was asked for.'])
    const changedBytes = (await tensorRows(view.id)).reduce((sum, { length }) => sum + length, 0)
    expect(kept.body.storedBytes).toBe(view.storedBytes + changedBytes)
    expect(kept.body.files).toEqual(view.files)
    const materialised = await getAll(view)
    for (const [path, bytes] of materialised) expect(bytes.equals(computed.get(path)!), path).toBe(true)

    const rows = await tensorRows(view.id)
    expect(rows.map(({ blob }) => `sha256:${blob}`)).toEqual(rows.map(({ digest }) => digest))
    const evicted = await setStorage(view.id, 'computed')
    expect([evicted.status, evicted.body.storage, evicted.body.storedBytes]).toEqual([200, 'computed', view.storedBytes])
    // Readers that have begun, and backups, still find them for the grace period.
    await collectGarbage({ ctx: registry.server.dependencies })
    for (const { blob, length } of rows) expect(await blobStore(registry).size(blobKey(blob!))).toBe(length)
    await collectGarbage({ ctx: registry.server.dependencies, input: { graceSeconds: 0 } })
    for (const { blob } of rows) expect(await blobStore(registry).size(blobKey(blob!))).toBe(null)

    const changed = view.files.filter((file: any) => file.changed).map(({ path }: any) => path)
    await fc.assert(fc.asyncProperty(fc.constantFrom(...changed), fc.nat(), fc.nat(), async (path: string, a, b) => {
      const whole = materialised.get(path)!
      const [start, end] = [a % whole.length, b % whole.length].sort((x, y) => x - y) as [number, number]
      expect((await getBytes(view.id, path, { Range: `bytes=${start}-${end}` })).equals(whole.subarray(start, end + 1)), `${path} ${start}-${end}`).toBe(true)
    }), { numRuns: 60 })

    const again = await setStorage(view.id, 'materialised')
    expect(again.body.receipt).toEqual(view.receipt)
    expect((await tensorRows(view.id)).map(({ blob, digest }) => digest === `sha256:${blob}`)).not.toContain(false)
    const rowsOfAudit = await registry.server.dependencies.db.select({ action: audit.action }).from(audit).where(and(eq(audit.subject, view.id), like(audit.action, 'derivation.%'))).orderBy(audit.id)
    expect(rowsOfAudit.map(({ action }) => action)).toEqual(['derivation.request', 'derivation.merge', 'derivation.request-materialise', 'derivation.materialise', 'derivation.evict', 'derivation.request-materialise', 'derivation.materialise'])
  })

  it('knows size and ETag beforehand, and answers conditions as any file', async () => {
    const view = await merged(1)
    const { path, size, etag } = view.files.find((file: any) => file.changed)
    const params = { id: view.id, path }
    const head = await registry.call('headDerivationFile', { params })
    expect([head.status, head.headers.get('content-length'), head.headers.get('etag')]).toEqual([200, String(size), `"${etag}"`])
    const url = `${registry.url}/v1/derivations/${view.id}/files/${path}`
    const ask = async (headers: Record<string, string>) => {
      const response = await fetch(url, { headers })
      return [response.status, response.headers.get('content-range'), (await response.arrayBuffer()).byteLength]
    }
    expect(await ask({ Range: `bytes=${size - 9}-`, 'If-Range': `"${etag}"` })).toEqual([206, `bytes ${size - 9}-${size - 1}/${size}`, 9])
    expect(await ask({ Range: 'bytes=0-1', 'If-Range': '"other"' })).toEqual([200, null, size])
    expect((await ask({ Range: `bytes=${size}-` }))[0]).toBe(416)
    expect(await ask({ 'If-None-Match': `"${etag}"` })).toEqual([304, null, 0])
  })

  it('is planned as ranges of its own route, which put together are the file', async () => {
    const view = await merged(1)
    const plan = await registry.ok('getDerivationPlan', { params: { id: view.id } })
    const { path, extents } = plan.files.find(({ path }: any) => path.endsWith('.safetensors') && view.files.find((file: any) => file.path === path).changed)
    expect(extents.some(({ blob }: any) => blob === null) && extents.some(({ blob }: any) => blob !== null)).toBe(true)
    const parts = await Promise.all(extents.map(async ({ url, headers, length }: any) => {
      const response = await fetch(url, { headers })
      const bytes = Buffer.from(await response.arrayBuffer())
      expect([response.status, bytes.length]).toEqual([206, length])
      return bytes
    }))
    expect(sha256(Buffer.concat(parts))).toBe(sha256(await getBytes(view.id, path)))
  })

  it('keeps its headers and tensors while garbage is collected all the while', async () => {
    const { dependencies } = registry.server
    const { putBlob } = dependencies.blobs
    Object.assign(dependencies.blobs, { putBlob: async (...header: Parameters<typeof putBlob>) => { await putBlob(...header); await sleep(100) } })
    let ended = false
    const collecting = (async () => { while (!ended) await collectGarbage({ ctx: dependencies, input: { graceSeconds: 0 } }) })()
    try {
      for (const [weight, storage] of [[0.9375, 'materialised'], [0.96875, 'computed']] as const) {
        const view = await merged(weight, storage)
        const bytes = await getAll(view)
        const { tensors } = await registry.ok('getDerivationManifest', { params: { id: view.id } })
        for (const { name, file, offset, length, digest } of tensors) expect(`sha256:${sha256(bytes.get(file)!.subarray(offset, offset + length))}`, name).toBe(digest)
      }
    } finally {
      ended = true
      await collecting
      Object.assign(dependencies.blobs, { putBlob })
    }
  })

  it('stays readable while it is evicted under an answer that has begun', async () => {
    const view = await merged(0.625, 'materialised')
    const { path, size } = view.files.find((file: any) => file.changed)
    const expected = sha256(await getBytes(view.id, path))
    const { body } = await fetch(`${registry.url}/v1/derivations/${view.id}/files/${path}`)
    const chunks: Uint8Array[] = []
    const reader = body!.getReader()
    chunks.push((await reader.read()).value!)
    await setStorage(view.id, 'computed')
    await collectGarbage({ ctx: registry.server.dependencies, input: { graceSeconds: 0 } })
    for (let next = await reader.read(); !next.done; next = await reader.read()) chunks.push(next.value)
    expect([chunks.reduce((sum, { length }) => sum + length, 0), sha256(Buffer.concat(chunks))]).toEqual([size, expected])
  })
})

describe('storage', () => {
  it('is as asked where the request starts the merge, and is not changed by asking again', async () => {
    const view = await merged(0.375, 'materialised')
    expect(view).toMatchObject({ storage: 'materialised', storageReason: 'It was asked for.' })
    expect(view.storedBytes).toBeGreaterThan(await headerBytes(view))
    expect((await merged(0.375, 'computed')).storage).toBe('materialised')
    expect((await merged(0.375, 'nonsense')).error.code).toBe('invalid_request')
  })

  it('is changed by who may publish to the organization of the target, and nobody else', async () => {
    const { id } = await merged(1)
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    const reader = await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish'] })
    for (const [token, status, code] of [[null, 401, 'unauthenticated'], [stranger, 403, 'forbidden'], [reader, 403, 'forbidden'], [await newToken(registry, ['read']), 403, 'forbidden']] as const) {
      const answer = await setStorage(id, 'materialised', token)
      expect([answer.status, answer.body.error.code]).toEqual([status, code])
    }
    const missing = await setStorage('0'.repeat(64), 'computed')
    expect([missing.status, missing.body.error.code]).toEqual([404, 'not_found'])
    expect((await merged(1)).storage).toBe('computed')
  })

  it('stays computed, loudly, where materialising gives other bytes than the first merge told of', async () => {
    const view = await merged(0.125)
    const [row] = await tensorRows(view.id)
    await registry.server.dependencies.db.update(changedTensors).set({ digest: `sha256:${'0'.repeat(64)}` }).where(eq(changedTensors.id, row!.id))
    const answer = await setStorage(view.id, 'materialised')
    expect([answer.status, answer.body.error.code, answer.body.error.message]).toEqual([502, 'merge_failed', expect.stringContaining(`${row!.name} was merged to ${row!.digest} now, but manifest and receipt say sha256:0000`)])
    expect((await registry.ok('getDerivation', { params: { id: view.id } }))).toMatchObject({ state: 'ready', storage: 'computed', job: { state: 'failed' } })
    expect((await tensorRows(view.id)).every(({ blob }) => blob === null)).toBe(true)
    expect(await blobStore(registry).size(blobKey(row!.digest.slice(7)))).toBe(null)
  })

  it('is materialised where no core can serve; what is computed then answers 503 with what to do', async () => {
    const view = await merged(1)
    const dependencies = registry.server.dependencies as { merger: unknown }
    const { merger } = dependencies
    dependencies.merger = null
    try {
      const { path } = view.files.find((file: any) => file.changed)
      const whole = await registry.call('getDerivationFile', { params: { id: view.id, path } })
      expect([whole.status, whole.body.error.code, whole.body.error.message]).toEqual([503, 'unavailable', expect.stringContaining(`PUT /v1/derivations/${view.id}/storage`)])
      expect((await registry.call('getDerivationPlan', { params: { id: view.id } })).status).toBe(503)
      expect(await merged(0.875)).toMatchObject({ storage: 'materialised', storageReason: expect.stringContaining('No merge core') })
      expect((await merged(0.8125, 'computed')).error.code).toBe('unavailable')
    } finally {
      dependencies.merger = merger
    }
  })
})
