import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { decodeProtectedHeader } from 'jose'
import { desc, eq } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createJoseSigner } from '../../api/ports/jose-signer.ts'
import { LEAD_MS, REREAD_MS } from '../../api/ports/signing-keys.ts'
import { rotateKeys } from '../../api/services/settings/rotate-keys.ts'
import { startServer } from '../../api/start-server.ts'
import { audit, settings } from '../../db/schema.ts'
import { ROOT } from '../setup/registry.ts'
import { DEPLOYMENT, startTestRegistry, type TestRegistry } from './harness.ts'

const HOUR_MS = 3_600_000
const CLAIMS = { jobId: 'job', queueId: 'queue', kind: 'merge', retryCount: 0 }

let registry: TestRegistry
beforeAll(async () => {
  registry = await startTestRegistry()
})
afterAll(() => registry.close())

it("a new key of runners' tokens is known to every server before one signs with it, and the old one is forgotten when no token needs it", async () => {
  const { db } = registry.server.dependencies
  let now = Date.now()
  const clock = { now: () => new Date(now) }
  const server = () => createJoseSigner({ db, issuer: registry.url, clock })
  const [one, other, idle] = [await server(), await server(), await server()]
  const keyOf = async (signer: typeof one) => decodeProtectedHeader(await signer.signAttempt(CLAIMS, 60)).kid
  const old = await one.signAttempt(CLAIMS, 1000 * 3600)
  const oldKey = decodeProtectedHeader(old).kid

  const rotated = (await rotateKeys({ ctx: { db, clock } }))!
  expect(rotated.signing).toMatchObject({ signsFrom: new Date(now + LEAD_MS).toISOString(), forgotten: [] })
  expect(await rotateKeys({ ctx: { db, clock } })).toBeNull()
  now += REREAD_MS
  expect([await keyOf(one), await keyOf(other)]).toEqual([oldKey, oldKey])
  now += LEAD_MS
  expect(await keyOf(one)).toBe(rotated.signing.added)
  const fresh = await one.signAttempt(CLAIMS, 60)
  // One that was not asked for anything all the while, and one that starts now.
  for (const signer of [other, idle, await server()]) expect([await signer.verifyAttempt(fresh), await signer.verifyAttempt(old)]).toEqual([CLAIMS, CLAIMS])

  now += 12 * HOUR_MS
  expect(await other.verifyAttempt(old)).toEqual(CLAIMS)
  now += 12 * HOUR_MS
  expect([await other.verifyAttempt(old), await (await server()).verifyAttempt(old)]).toEqual([null, null])
  const again = (await rotateKeys({ ctx: { db, clock } }))!
  expect(again.signing.forgotten).toEqual([oldKey])
  expect(JSON.stringify(await db.select().from(settings))).not.toContain(oldKey)
  const [row] = await db.select().from(audit).where(eq(audit.action, 'keys.rotate')).orderBy(desc(audit.id)).limit(1)
  expect(row).toMatchObject({ subject: again.signing.added })
  expect(JSON.stringify(row)).not.toMatch(/"d":|"x":/)
})

it.each(['garbage', 'e30.e30.e30', 'eyJhbGciOiJub25lIn0.e30.'])('%s is no token', async (token) => {
  expect(await registry.server.dependencies.signer.verifyAttempt(token)).toBeNull()
})

it('portllm-server rotate-keys: URLs of the data folder end with the next start, and nothing else does', async () => {
  const own = await startTestRegistry()
  const rotate = () => promisify(execFile)(process.execPath, [`${ROOT}api/server.ts`, 'rotate-keys', '--data', own.config.data, '--json'], { env: { ...process.env, DATABASE_URL: own.config.databaseUrl ?? '' } })
  const before = await own.server.dependencies.db.select().from(settings)
  // The embedded database has one user at a time.
  if (DEPLOYMENT === 'embedded') await expect(rotate()).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(`process ${process.pid}`) })
  await own.server.close()
  const { signing, blobUrls } = JSON.parse((await rotate()).stdout)
  expect(blobUrls).toBe(before.some(({ key }) => key === 'blob-url-key'))
  const again = await startServer(own.config, { log: own.server.dependencies.log, onFatal() {} })
  try {
    const after = await again.dependencies.db.select().from(settings)
    const value = (rows: typeof after, key: string) => rows.find((row) => row.key === key)?.value
    expect(value(after, 'signing-key')).toEqual(value(before, 'signing-key'))
    expect(JSON.stringify(value(after, 'signing-keys'))).toContain(signing.added)
    if (blobUrls) expect(value(after, 'blob-url-key')).not.toBe(value(before, 'blob-url-key'))
    await expect(rotate()).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(DEPLOYMENT === 'embedded' ? `process ${process.pid}` : 'does not sign yet') })
    expect((await fetch(`${again.url}/v1/whoami`, { headers: { Authorization: `Bearer ${own.adminToken}` } })).status).toBe(200)
  } finally {
    await again.close()
    await own.close()
  }
})
