import { createHash, randomBytes } from 'node:crypto'
import { createServer, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFileFixture, type FileFixture } from '../contract/file-fixture.ts'
import type { TestRegistry } from '../contract/harness.ts'
import { startEdge, type EdgeServices } from '../setup/edge.ts'
import { cacheUrl, type EdgeRegistry } from '../setup/edge-registry.ts'
import { freePort } from '../setup/free-port.ts'

const MIB = 1024 * 1024

let fixture: FileFixture
let registry: TestRegistry
beforeAll(async () => {
  fixture = await startFileFixture()
  registry = fixture.registry
})
afterAll(() => fixture.close())

/** Another Worker on the same database and bucket. */
async function another<T>(changes: Partial<EdgeServices>, work: (url: string, log: readonly string[]) => Promise<T>): Promise<T> {
  const { databaseUrl, s3 } = registry.config
  const log: string[] = []
  const edge = await startEdge({ databaseUrl: databaseUrl!, cachedDatabaseUrl: cacheUrl(databaseUrl!), s3: s3!, port: await freePort(), onLog: (line) => void log.push(line), ...changes })
  return work(edge.url, log).finally(edge.stop)
}

it('refuses an address that asks too often with 429, and says when to ask again', async () => {
  await another({ requestsPerMinute: 3 }, async (url) => {
    const answers = []
    for (let i = 0; i < 5; i++) answers.push(await fetch(`${url}/v1/health`))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 429, 429])
    const { headers } = answers[3]!
    expect([headers.get('retry-after'), headers.get('cache-control'), ((await answers[3]!.json()) as any).error]).toEqual(['60', 'no-store', expect.objectContaining({ code: 'too_many_requests', requestId: headers.get('x-request-id') })])
  })
})

it('names a wrong binding in its log, and to clients says nothing of it', async () => {
  await another({ vars: { PORTLLM_PUBLIC_URL: 'nowhere' } }, async (url, log) => {
    const response = await fetch(`${url}/v1/health`)
    expect([response.status, ((await response.json()) as any).error.code]).toEqual([500, 'internal'])
    expect(log.join()).toContain('PORTLLM_PUBLIC_URL must be an http:// or https:// URL')
    expect(log.join()).not.toContain(registry.config.s3!.secretAccessKey)
  })
})

it('watches over jobs when the cron trigger fires', async () => {
  const { edge, dependencies: { db } } = registry.server as EdgeRegistry
  await edge.scheduled()
  await db.execute(sql`alter schema queue rename to hidden`)
  try {
    await expect(edge.scheduled()).rejects.toThrow('ended with exception')
  } finally {
    await db.execute(sql`alter schema hidden rename to queue`)
  }
})

it('asks the cached binding for the extents of published files, and for nothing else', async () => {
  const { db } = registry.server.dependencies
  const organization = await fixture.organization()
  const model = await fixture.model(organization)
  const derivation = await fixture.derivation(model.id, [(await fixture.patch(organization, model.id)).id])
  const bytes = new TextEncoder().encode('{}')
  const list = [{ blob: await fixture.blob(bytes), offset: 0, length: 2 }]
  await fixture.file({ modelVersionId: model.id }, 'config.json', list, bytes)
  await fixture.file({ derivationId: derivation.id }, 'config.json', list, bytes)
  const statuses = () => Promise.all([`${model.path}/files/config.json`, model.path, `${derivation.path}/files/config.json`, '/'].map(async (path) => (await fetch(registry.url + path)).status))
  const role = sql.identifier(new URL(cacheUrl(registry.config.databaseUrl!)).username)
  expect(await statuses()).toEqual([200, 200, 200, 200])
  await db.execute(sql`revoke select on files from ${role}`)
  expect(await statuses()).toEqual([500, 200, 200, 200])
  await db.execute(sql`grant select on files to ${role}`)
})

describe('what a download asks of the store', () => {
  /** Passes requests on to the store, with their Host, which is signed. */
  async function countRequests(work: (url: string, counts: { methods: string[]; most: number }) => Promise<void>): Promise<void> {
    const store = new URL(registry.config.s3!.endpoint!)
    const counts = { methods: [] as string[], most: 0 }
    let open = 0
    const proxy = createServer((asked, answer) => {
      counts.methods.push(asked.method!)
      counts.most = Math.max(counts.most, ++open)
      answer.once('close', () => open--)
      asked.pipe(send({ host: store.hostname, port: store.port, method: asked.method, path: asked.url, headers: asked.headers }, (got) => {
        answer.writeHead(got.statusCode!, got.headers)
        got.pipe(answer)
      }))
    })
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    try {
      await another({ s3: { ...registry.config.s3!, endpoint: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` } }, (url) => work(url, counts))
    } finally {
      proxy.closeAllConnections()
      proxy.close()
    }
  }

  it('is one request for each extent, neighbours in one blob being one, and never more than three at once', async () => {
    const [a, b] = [randomBytes(4 * MIB), randomBytes(MIB)]
    const [blobA, blobB] = [await fixture.blob(a), await fixture.blob(b)]
    const piece = (blob: string, offset: number, length: number) => ({ blob, offset, length })
    const turns = Array.from({ length: 12 }, (_, i) => [piece(blobB, i * 1000, 50_000), piece(blobA, i * 4096, 100_000)]).flat()
    const list = [piece(blobA, 0, 2 * MIB), piece(blobA, 2 * MIB, MIB), ...turns]
    const bytes = Buffer.concat(list.map(({ blob, offset, length }) => (blob === blobA ? a : b).subarray(offset, offset + length)))
    const model = await fixture.model(await fixture.organization())
    await fixture.file({ modelVersionId: model.id }, 'a.bin', list, bytes)
    await countRequests(async (url, counts) => {
      const address = `${url}${model.path}/files/a.bin`
      const whole = new Uint8Array(await (await fetch(address)).arrayBuffer())
      expect(createHash('sha256').update(whole).digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'))
      expect(counts.methods).toEqual(Array(25).fill('GET'))
      expect(counts.most).toBeLessThanOrEqual(3)
      const part = await fetch(address, { headers: { Range: `bytes=${2 * MIB - 5}-${2 * MIB + 4}` } })
      expect(Buffer.from(await part.arrayBuffer()).equals(a.subarray(2 * MIB - 5, 2 * MIB + 5))).toBe(true)
      expect(counts.methods.length).toBe(26)
      expect((await fetch(address, { method: 'HEAD' })).headers.get('content-length')).toBe(String(bytes.length))
      expect(counts.methods.length).toBe(26)
    })
  })
})
