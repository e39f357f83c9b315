import { eq } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { blobKey } from '../../api/ports/blob-store.ts'
import { scrub } from '../../api/services/scrub/scrub.ts'
import { blobs, derivationPatches, derivations, modelVersions, patchVersions, settings } from '../../db/schema.ts'
import { newOrganization, publish, sha256, startTestRegistry, type TestRegistry } from './harness.ts'
import { storedObjects, type StoredObjects } from './stored-objects.ts'

let registry: TestRegistry
let objects: StoredObjects
let org: string
const DERIVATION = 'd'.repeat(64)
const CONTENT = { base: 'of the base'.repeat(1000), evolved: 'of the evolved model', both: 'in both versions', patch: 'of the patch', readme: 'read me', dataset: '{"text":"of the data set"}\n' }

beforeAll(async () => {
  registry = await startTestRegistry()
  objects = storedObjects(registry)
  org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'model', version: '1', files: { 'base.bin': CONTENT.base, 'config.json': CONTENT.both } })
  await publish(registry, { kind: 'model', org, name: 'model', version: '2', files: { 'evolved.bin': CONTENT.evolved, 'config.json': CONTENT.both } })
  await publish(registry, { kind: 'patch', org, name: 'patch', version: '1.0.0', base: `${org}/model@1`, files: { 'adapter_model.safetensors': CONTENT.patch, 'README.md': CONTENT.readme } })
  await publish(registry, { kind: 'dataset', org, name: 'data', version: '1.0.0', files: { 'train.jsonl': CONTENT.dataset } })
  const { db } = registry.server.dependencies
  const [base, target] = await db.select().from(modelVersions).orderBy(modelVersions.version)
  const [patch] = await db.select().from(patchVersions)
  const recipe = { format: 'portllm.derivation/1', target: target!.digest, patches: [{ digest: patch!.digest, weight: 1, base: base!.digest }] } as never
  await db.insert(derivations).values({ id: DERIVATION, recipe, targetVersionId: target!.id, state: 'ready', storage: 'computed' })
  await db.insert(derivationPatches).values({ derivationId: DERIVATION, position: 0, patchVersionId: patch!.id, weight: 1 })
})
afterAll(() => registry.close())

const keyOf = (content: string) => blobKey(sha256(content))
const run = (input?: Parameters<typeof scrub>[0]['input']) => scrub({ ctx: registry.server.dependencies, ...(input && { input }) })
const TOTAL = { blobs: 6, bytes: Object.values(CONTENT).reduce((sum, { length }) => sum + length, 0) }

async function flip(content: string, position: number): Promise<void> {
  const bytes = await objects.get(keyOf(content))
  bytes[position]! ^= 1
  await objects.put(keyOf(content), bytes)
}

it('finds nothing where nothing is wrong, also a blob that is gone and that nobody needs', async () => {
  await registry.server.dependencies.db.insert(blobs).values({ sha256: sha256('let go of'), size: 9 })
  expect(await run()).toEqual({ ...TOTAL, damaged: [] })
})

it('goes on where it was interrupted, with what it had found, unless it is to begin again', async () => {
  await flip(CONTENT.base, 7)
  const seen: number[] = []
  const stop = new AbortController()
  await expect(run({ signal: stop.signal, onProgress: ({ blobs: count }) => void (seen.push(count) === 3 && stop.abort()) })).rejects.toThrow('aborted')
  const rest = await run({ onProgress: ({ blobs: count }) => void seen.push(count) })
  expect(seen).toEqual([1, 2, 3, 4, 5, 6])
  expect([rest.blobs, rest.bytes, rest.damaged.map(({ sha256: digest }) => digest)]).toEqual([TOTAL.blobs, TOTAL.bytes, [sha256(CONTENT.base)]])
  expect(await registry.server.dependencies.db.select().from(settings).where(eq(settings.key, 'scrub'))).toEqual([])

  const again = new AbortController()
  await expect(run({ signal: again.signal, onProgress: () => again.abort() })).rejects.toThrow('aborted')
  const counted: number[] = []
  expect((await run({ restart: true, onProgress: ({ blobs: count }) => void counted.push(count) })).damaged.length).toBe(1)
  expect(counted).toEqual([1, 2, 3, 4, 5, 6])
  await flip(CONTENT.base, 7)
})

it('reads no faster than it may', async () => {
  const started = performance.now()
  await run({ bytesPerSecond: TOTAL.bytes / 0.6 })
  expect(performance.now() - started).toBeGreaterThan(590)
})

it('names a flipped bit, a missing end, bytes too many and a missing blob, and what depends on each; and touches none', async () => {
  await flip(CONTENT.base, CONTENT.base.length - 1)
  await flip(CONTENT.dataset, 0)
  await objects.put(keyOf(CONTENT.patch), CONTENT.patch.slice(0, 3))
  await objects.put(keyOf(CONTENT.evolved), CONTENT.evolved.padEnd(1000, '\0'))
  await objects.remove(keyOf(CONTENT.both))
  const { damaged } = await run()
  const nothing = { modelVersions: [], patchVersions: [], datasetVersions: [], derivations: [], evaluations: [], paths: [] }
  const expected = [
    { content: CONTENT.base, problem: 'corrupt', message: expect.stringContaining('have the SHA-256'), dependents: { ...nothing, modelVersions: [`${org}/model@1`], derivations: [DERIVATION], paths: ['base.bin'] } },
    { content: CONTENT.patch, problem: 'short', message: expect.stringContaining('has 3 bytes, not 12'), dependents: { ...nothing, patchVersions: [`${org}/patch@1.0.0`], derivations: [DERIVATION], paths: ['adapter_model.safetensors'] } },
    { content: CONTENT.dataset, problem: 'corrupt', message: expect.stringContaining('have the SHA-256'), dependents: { ...nothing, datasetVersions: [`${org}/data@1.0.0`], paths: ['train.jsonl'] } },
    { content: CONTENT.evolved, problem: 'long', message: expect.stringContaining('has 1000 bytes, not 20'), dependents: { ...nothing, modelVersions: [`${org}/model@2`], derivations: [DERIVATION], paths: ['evolved.bin'] } },
    { content: CONTENT.both, problem: 'missing', message: expect.stringContaining('has no object'), dependents: { ...nothing, modelVersions: [`${org}/model@1`, `${org}/model@2`], derivations: [DERIVATION], paths: ['config.json'] } },
  ]
  const bySha = (a: { sha256: string }, b: { sha256: string }) => (a.sha256 < b.sha256 ? -1 : 1)
  expect(damaged).toEqual(expected.map(({ content, ...rest }) => ({ sha256: sha256(content), size: content.length, ...rest })).sort(bySha))
  const { damaged: again } = await run()
  expect(again).toEqual(damaged)
})
