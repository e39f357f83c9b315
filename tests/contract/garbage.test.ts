import { setTimeout as sleep } from 'node:timers/promises'
import { eq } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { blobKey } from '../../api/ports/blob-store.ts'
import { collectGarbage, type GarbageRequest } from '../../api/services/garbage/collect.ts'
import { collectWhenDue } from '../../api/services/garbage/collect-when-due.ts'
import { audit, blobs, settings, uploadFiles } from '../../db/schema.ts'
import { DEPLOYMENT, fileList, newOrganization, publish, putFiles, runIngest, sha256, startTestRegistry, upload, type TestRegistry } from './harness.ts'
import { storedObjects, type StoredObjects } from './stored-objects.ts'

let registry: TestRegistry
let objects: StoredObjects
let org: string
beforeAll(async () => {
  registry = await startTestRegistry()
  objects = storedObjects(registry)
  org = await newOrganization(registry)
})
afterAll(() => registry.close())

const DAY = 24 * 3600
const collect = (input: GarbageRequest = {}) => collectGarbage({ ctx: registry.server.dependencies, input })
const removedBy = async (input?: GarbageRequest) => (await collect(input)).removed

async function plant(key: string, content: string, days: number): Promise<string> {
  const planted = await objects.put(key, content)
  await objects.age(planted, days)
  return planted
}

describe('garbage collection', () => {
  it('removes what nothing reaches once the grace period is over, by kind, and tells what it would', async () => {
    await publish(registry, { kind: 'model', org, name: 'kept', version: '1', files: { 'a.txt': 'kept' } })
    await objects.age(blobKey(sha256('kept')), 400)
    const job = crypto.randomUUID()
    const orphans = { [blobKey(sha256('lost'))]: 'lost', [`uploads/${crypto.randomUUID()}`]: '12345', [`attempts/${job}/0/out`]: '1', [`attempts/${job}/1/out`]: '22', 'incoming/half': '123' }
    const planted: string[] = []
    for (const [key, content] of Object.entries(orphans)) planted.push(await plant(key, content, 1.1))
    await plant(blobKey(sha256('fresh')), 'fresh', 0.9)
    const moving = await plant('incoming/moving', '1', 0)
    await plant('blobs/readme.txt', 'of the operator', 400)

    const expected = { blobs: { objects: 1, bytes: 4 }, uploads: { objects: 1, bytes: 5 }, attempts: { objects: 2, bytes: 3 }, incoming: { objects: 1, bytes: 3 } }
    expect(await collect({ dryRun: true })).toEqual({ dryRun: true, graceSeconds: DAY, removed: expected })
    expect(await Promise.all(planted.map(objects.has))).toEqual([true, true, true, true, true])
    expect(await removedBy()).toEqual(expected)
    expect(await Promise.all(planted.map(objects.has))).toEqual([false, false, false, false, false])
    expect([await objects.keys('attempts'), await objects.has(moving), await objects.has('blobs/readme.txt')]).toEqual([[], true, true])
    expect(await objects.keys('blobs')).toEqual([blobKey(sha256('kept')), blobKey(sha256('fresh')), 'blobs/readme.txt'].sort())
    const nothing = { objects: 0, bytes: 0 }
    expect(await removedBy()).toEqual({ blobs: nothing, uploads: nothing, attempts: nothing, incoming: nothing })
    const written = await registry.server.dependencies.db.select({ after: audit.after }).from(audit).where(eq(audit.action, 'registry.collect-garbage'))
    expect(written).toEqual([{ after: { dryRun: false, graceSeconds: DAY, removed: expected } }])

    // Without grace too, bytes that are on their way in arrive.
    expect(await removedBy({ graceSeconds: 0 })).toEqual({ blobs: { objects: 1, bytes: 5 }, uploads: nothing, attempts: nothing, incoming: nothing })
    expect((await fetch(`${registry.url}/v1/models/${org}/kept/1/files/a.txt`)).status).toBe(200)
  })

  it('removes the row of a blob whose object is gone, and of what was let go of only after the grace period', async () => {
    const { db } = registry.server.dependencies
    const old = new Date(Date.now() - 2 * DAY * 1000)
    const [gone, released] = [sha256('gone'), sha256('released')]
    await plant(blobKey(released), 'released', 400)
    await db.insert(blobs).values([{ sha256: gone, size: 4, createdAt: old }, { sha256: released, size: 8, createdAt: old, releasedAt: new Date(Date.now() - 0.9 * DAY * 1000) }])
    const rows = async () => (await db.select({ sha256: blobs.sha256 }).from(blobs)).map((row) => row.sha256).filter((digest) => digest === gone || digest === released)
    expect((await removedBy()).blobs!.objects).toBe(0)
    expect(await rows()).toEqual([released])
    expect((await removedBy({ graceSeconds: 0.8 * DAY })).blobs).toEqual({ objects: 1, bytes: 8 })
    expect([await rows(), await objects.has(blobKey(released))]).toEqual([[], false])
  })

  it.each(['Model', 'Dataset'])('keeps what drafts of a %s have, until they are abandoned; then it can be sent again', async (kind) => {
    const sent = `sent to a ${kind}`
    const params = { org, name: 'draft', version: '1' }
    const files = { a: sent, b: `not yet of a ${kind}` }
    const draft = await registry.ok(`draft${kind}Version`, { params, body: { files: fileList(files) } })
    await putFiles({ files: draft.files.slice(0, 1) }, files)
    const [row] = await registry.server.dependencies.db.select({ id: uploadFiles.id }).from(uploadFiles).where(eq(uploadFiles.sha256, sha256(sent)))
    await objects.age(`uploads/${row!.id}`, 29)
    expect((await removedBy({ graceSeconds: 0 })).uploads!.objects).toBe(0)
    await objects.age(`uploads/${row!.id}`, 31)
    expect((await removedBy({ dryRun: true })).uploads).toEqual({ objects: 1, bytes: sent.length })
    expect((await removedBy()).uploads).toEqual({ objects: 1, bytes: sent.length })
    const again = await registry.ok(`get${kind}Upload`, { params })
    expect(await putFiles(again, files)).toEqual([200, 200])
    await registry.ok(`complete${kind}Upload`, { params })
    for (const { id } of await registry.server.dependencies.db.select({ id: uploadFiles.id }).from(uploadFiles).where(eq(uploadFiles.sha256, sha256(sent)))) await objects.age(`uploads/${id}`, 400)
    expect((await removedBy()).uploads!.objects).toBe(0)
    expect((await runIngest(registry)).status).toBe(204)
  })
})

it('is collected once a day by the servers of one database, and ends when its server does', async () => {
  const { dependencies } = registry.server
  const lost = blobKey(sha256('lost again'))
  const collected = async (signal = new AbortController().signal) => {
    await plant(lost, 'lost again', 2)
    await Promise.all([collectWhenDue({ ctx: dependencies, signal }), collectWhenDue({ ctx: dependencies, signal })])
    return !(await objects.has(lost))
  }
  const setLast = (hours: number) => dependencies.db.update(settings).set({ value: new Date(Date.now() - hours * 3600_000).toISOString() }).where(eq(settings.key, 'garbage-collection'))
  expect(await collected()).toBe(false) // at the start there was one
  await setLast(23.9)
  expect(await collected()).toBe(false)
  await setLast(24.1)
  expect(await collected()).toBe(true)
  expect(await collected()).toBe(false)
  await setLast(24.1)
  await expect(collected(AbortSignal.abort())).rejects.toThrow('aborted')
  expect(await objects.has(lost)).toBe(true)
})

/** PGlite has one connection: there the rounds only show that nothing waits for ever. */
const ROUNDS = DEPLOYMENT === 'server' ? 100 : 20
const WORKERS = 4

it(`no published version lacks a byte after ${ROUNDS} rounds beside a collection without grace`, async () => {
  const { db, blobs: store } = registry.server.dependencies
  // Between what it finds and what it removes there is time for everything.
  const slow = { ...store, remove: async (digest: string) => { await sleep(Math.random() * 8); await store.remove(digest) } }
  let removed = 0
  let ended = false
  const collecting = (async () => {
    while (!ended) removed += (await collectGarbage({ ctx: { db, blobs: slow }, input: { graceSeconds: 0 } })).removed.blobs!.objects
  })()
  const contentOf = (round: number) => `bytes of round ${round}`
  const round = async (number: number) => {
    const content = contentOf(number)
    await upload(registry, { kind: 'model', org, name: 'race', version: `${number}`, files: { 'a.txt': content, 'b.txt': `too, ${content}` } })
    // What a rolled back transaction leaves, and what has been let go of: the ingest finds them there, or going.
    if (number % 3 > 0) await store.putBlob(sha256(content), Buffer.from(content))
    if (number % 3 > 1) await db.insert(blobs).values({ sha256: sha256(content), size: content.length }).onConflictDoNothing()
    const { status } = await runIngest(registry, number % 4 === 0 ? { rejection: [{ code: 'test', message: 'refused' }] } : {})
    expect(status).toBe(204)
  }
  let next = 0
  try {
    await Promise.all(Array.from({ length: WORKERS }, async () => { while (next < ROUNDS) await round(next++) }))
  } finally {
    ended = true
    await collecting
  }
  await collect({ graceSeconds: 0 })
  const counts = { published: 0, rejected: 0 }
  for (let number = 0; number < ROUNDS; number++) {
    const { state } = await registry.ok('getModelUpload', { params: { org, name: 'race', version: `${number}` } })
    counts[state as 'published' | 'rejected']++
    if (state !== 'published') continue
    const response = await fetch(`${registry.url}/v1/models/${org}/race/${number}/files/a.txt`)
    expect([response.status, await response.text()], `round ${number}`).toEqual([200, contentOf(number)])
  }
  expect(counts.published + counts.rejected).toBe(ROUNDS)
  expect([removed > ROUNDS / 10, counts.published > ROUNDS / 2, counts.rejected > 0], JSON.stringify({ removed, counts })).toEqual([true, true, true])
  const rows = (await db.select({ sha256: blobs.sha256 }).from(blobs)).map((row) => blobKey(row.sha256))
  expect((await objects.keys('blobs')).filter((key) => key !== 'blobs/readme.txt')).toEqual(rows.sort())
}, 120_000)
