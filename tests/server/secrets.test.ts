import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { newOrganization, newToken, sha256, startTestRegistry } from '../contract/harness.ts'
import { startPostgres } from '../setup/postgres.ts'
import { startProgram } from '../setup/server-process.ts'

const PASSWORD = 'pa55/w@rd "quoted"'

function withPassword(url: string): string {
  const parsed = new URL(url)
  parsed.password = encodeURIComponent(PASSWORD)
  return parsed.href
}

/** Every form in which a text could stand in a line of JSON or in a URL. */
function formsOf(secret: string): string[] {
  return [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret), encodeURI(secret)]
}

it('no secret that a request, an error or the configuration holds comes into the log', { timeout: 60_000 }, async () => {
  const postgres = await startPostgres()
  const databaseUrl = withPassword(await postgres.createDatabase())
  const registry = await startTestRegistry({ databaseUrl, logLevel: 'trace' })
  let isStopped = false
  try {
    const org = await newOrganization(registry)
    const reader = await newToken(registry, ['read'])
    const runner = await newToken(registry, ['runner'])
    const { files: [{ parts: [{ url: signedUrl }] }] } = await registry.ok('draftModelVersion', { params: { org, name: 'm', version: 'v1' }, body: { files: [{ path: 'a', size: 1, sha256: '0'.repeat(64) }] } })
    const signature = new URL(signedUrl).searchParams.get('signature')!
    const unknownToken = `${reader.slice(0, -2)}zz`
    // Its hash is what the query for a token is asked with.
    const secrets = [registry.adminToken, sha256(reader), reader, runner, unknownToken, signature, PASSWORD, 'basic-secret', 'query-secret']

    const send = (path: string, headers: Record<string, string> = {}, method = 'GET') => fetch(`${registry.url}${path}`, { method, headers }).then((response) => response.text())
    await send('/v1/whoami', { Authorization: `Bearer ${reader}` })
    await send('/v1/whoami', { Authorization: `Bearer ${unknownToken}` })
    await send('/v1/whoami', { Authorization: 'Basic basic-secret' })
    await send(`/v1/whoami/${reader}?token=query-secret`)
    await fetch(signedUrl, { method: 'PUT', body: 'y' })
    await fetch(`${signedUrl}&more=query-secret`, { method: 'PUT', body: 'y' })
    await fetch(signedUrl)

    // An inner error that says all it knows.
    const { queue } = registry.server.dependencies
    const inner = Object.assign(new Error(`could not reach ${databaseUrl} nor ${signedUrl} with Bearer ${runner}`, { cause: new Error(`password ${PASSWORD} refused`) }), { input: databaseUrl })
    Object.assign(queue, { claim: async () => { throw inner } })
    const failed = await registry.call('claimJob', { token: runner, body: { kinds: ['ingest'], runner: { name: 'x' } } })
    expect(failed.status).toBe(500)
    // A query that fails in the database, with its values.
    await postgres.stop()
    isStopped = true
    await send('/v1/whoami', { Authorization: `Bearer ${reader}` })
    const unready = await fetch(`${registry.url}/readyz`)
    expect([unready.status, await unready.json()]).toEqual([503, { status: 'broken', parts: { database: 'failing', queue: 'failing', blobs: 'ok' } }])

    const lines = registry.log.map((line) => JSON.parse(line))
    expect(lines.find(({ requestId, msg }) => requestId === failed.body.error.requestId && msg === 'The request failed')).toMatchObject({ level: 'error', err: { message: expect.stringContaining('could not reach postgres://portllm:***@') } })
    expect(lines.find(({ err }) => err?.message.startsWith('Failed query'))).toMatchObject({ err: { message: expect.stringMatching(/^Failed query: select .*\$1/) } })
    // There is something to look in.
    const requests = lines.filter(({ msg }) => msg === 'Request')
    expect(requests.filter(({ path }) => path.startsWith('/blobs/'))).toHaveLength(3)
    expect(requests.find(({ path, tokenId }) => path === '/v1/whoami' && tokenId !== null)).toMatchObject({ method: 'GET', route: '/v1/whoami', status: 200, milliseconds: expect.any(Number), bytes: expect.any(Number), requestId: expect.any(String) })
    const text = registry.log.join('\n')
    for (const secret of secrets) for (const form of formsOf(secret)) expect(text).not.toContain(form)
  } finally {
    await registry.close()
    if (!isStopped) await postgres.stop()
  }
})

it('the password of a database that does not answer comes out nowhere', async () => {
  const data = await mkdtemp(join(tmpdir(), 'portllm-test-'))
  const DATABASE_URL = withPassword('postgres://portllm:x@127.0.0.1:1/registry')
  try {
    await Promise.all([['--data', data], ['--check-config', '--json'], ['migrate']].map(async (args) => {
      const program = startProgram('api/server.ts', args, { DATABASE_URL })
      const { code } = await program.ended
      const text = `${await program.output}\n${program.log.join('\n')}`
      expect([args, code, text]).toEqual([args, expect.any(Number), expect.stringContaining('127.0.0.1:1')])
      expect(code).toBeGreaterThan(0)
      for (const form of formsOf(PASSWORD)) expect(text).not.toContain(form)
    }))
  } finally {
    await rm(data, { recursive: true, force: true })
  }
})
