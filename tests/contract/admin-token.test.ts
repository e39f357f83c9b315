import { execFile } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { asc } from 'drizzle-orm'
import { expect, it } from 'vitest'
import { startServer, type RunningServer } from '../../api/start-server.ts'
import { audit } from '../../db/schema.ts'
import { createDatabase } from '../setup/postgres.ts'
import { ROOT } from '../setup/registry.ts'
import { DEPLOYMENT, newToken, startTestRegistry, type TestRegistry } from './harness.ts'

async function newAdminToken({ config }: TestRegistry): Promise<string> {
  const { stdout } = await server('--data', config.data, '--json', config.databaseUrl)
  return JSON.parse(stdout).adminToken
}

function server(...args: (string | undefined)[]) {
  const databaseUrl = args.pop() ?? ''
  return promisify(execFile)(process.execPath, [`${ROOT}api/server.ts`, '--new-admin-token', ...(args as string[])], { env: { ...process.env, DATABASE_URL: databaseUrl } })
}

it('whoever may use the data folder or the database replaces a lost administrator token', async () => {
  const registry = await startTestRegistry()
  let running: RunningServer = registry.server
  // The embedded database has one user at a time; a PostgreSQL server serves both.
  const around = async (work: () => Promise<string>) => {
    if (DEPLOYMENT === 'server') return work()
    await expect(newAdminToken(registry)).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(`process ${process.pid}`) })
    await running.close()
    const token = await work()
    running = await startServer(registry.config, { log: registry.server.dependencies.log, onFatal() {} })
    expect(running.bootstrapToken).toBeNull()
    return token
  }
  const whoami = async (token: string) => {
    const response = await fetch(`${running.url}/v1/whoami`, { headers: { Authorization: `Bearer ${token}` } })
    return response.status === 200 ? ((await response.json()) as any) : response.status
  }
  try {
    const own = await newToken(registry, ['read'])
    const before = await whoami(registry.adminToken)
    const first = await around(() => newAdminToken(registry))
    expect(await whoami(registry.adminToken)).toBe(401)
    const { user, token: { scopes } } = await whoami(first)
    expect([user, scopes]).toEqual([before.user, before.token.scopes])
    expect((await whoami(own)).user).toEqual(user)

    const second = await around(() => newAdminToken(registry))
    expect(await whoami(first)).toBe(401)
    expect((await whoami(second)).user).toEqual(user)

    const rows = await running.dependencies.db.select({ action: audit.action, requestId: audit.requestId, after: audit.after }).from(audit).orderBy(asc(audit.id))
    const ours = rows.filter(({ requestId }) => requestId === 'new-admin-token')
    expect(ours.map(({ action }) => action)).toEqual(['token.revoke', 'token.create', 'token.revoke', 'token.create'])
    expect(JSON.stringify(ours)).not.toMatch(/plm_|sha256/)
  } finally {
    await running.close()
    await registry.close()
  }
})

it('is an error where there is no registry, and makes none', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-test-'))
  try {
    await expect(server('--data', folder, undefined)).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(`There is no registry in ${folder}`) })
    expect(await readdir(folder)).toEqual([])
  } finally {
    await rm(folder, { recursive: true })
  }
})

if (DEPLOYMENT === 'server') it('makes the first administrator of a database that has none: a Worker shows no token', async () => {
  const databaseUrl = await createDatabase(process.env['PORTLLM_TEST_POSTGRES_URL']!)
  const { adminToken } = JSON.parse((await server('--json', databaseUrl)).stdout)
  const registry = await startTestRegistry({ databaseUrl })
  try {
    expect(registry.server.bootstrapToken).toBeNull()
    expect((await registry.ok('getWhoami', { token: adminToken })).user.isAdmin).toBe(true)
  } finally {
    await registry.close()
  }
})
