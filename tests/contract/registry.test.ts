import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import packageJson from '../../package.json' with { type: 'json' }
import { startServer } from '../../api/start-server.ts'
import { ROOT } from '../setup/registry.ts'
import { DEPLOYMENT, startTestRegistry, type TestRegistry } from './harness.ts'

let registry: TestRegistry
beforeAll(async () => { registry = await startTestRegistry() })
afterAll(() => registry.close())

describe('the registry', () => {
  it('says that it is well, and what it is', async () => {
    expect(await registry.ok('getHealth', { token: null })).toEqual({ status: 'ok', version: packageJson.version, deployment: DEPLOYMENT })
  })

  it('answers every request with an id of its own making', async () => {
    const response = await fetch(`${registry.url}/v1/health`, { headers: { 'X-Request-Id': 'mine' } })
    expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('answers in JSON what is not there, and what takes another method', async () => {
    const missing = await fetch(`${registry.url}/v1/nothing`)
    expect([missing.status, (await missing.json() as any).error.code]).toEqual([404, 'not_found'])
    const wrong = await fetch(`${registry.url}/v1/organizations`, { method: 'DELETE' })
    expect([wrong.status, wrong.headers.get('allow'), (await wrong.json() as any).error.code]).toEqual([405, 'GET, POST', 'method_not_allowed'])
  })

  it('names the field that is wrong', async () => {
    const { status, body } = await registry.call('createToken', { body: { name: 'x', scopes: ['everything'] } })
    expect([status, body.error.code]).toEqual([400, 'invalid_request'])
    expect(body.error.message).toContain('scopes.0')
    const unnamed = await registry.call('resolvePatches', { query: { target: 'lab/base@v1' } })
    expect([unnamed.status, unnamed.body.error.message]).toEqual([400, expect.stringContaining('patch=org/name')])
  })

  it.each(['{"name":', '[]', '"x"', 'null', '{"name":"a","unknown":1}'])('refuses the body %s', async (body) => {
    const answer = await registry.call('createOrganization', { body })
    expect([answer.status, answer.body.error.code]).toEqual([400, 'invalid_request'])
  })

  it('refuses what no database keeps, wherever it is', async () => {
    for (const [path, status, code] of [
      ['/v1/models/a%00b/c', 404, 'not_found'], ['/lab%00/model', 404, 'not_found'], ['/api/models/a/b%00', 404, 'not_found'],
      ['/v1/models?organization=a%00b', 400, 'invalid_request'],
    ] as const) {
      const response = await fetch(`${registry.url}${path}`)
      expect([path, response.status, (await response.json() as any).error.code]).toEqual([path, status, code])
    }
    for (const name of ['tok\0en', '\ud800', 'a\udc00b']) {
      const { status, body } = await registry.call('createToken', { body: { name, scopes: ['read'] } })
      expect([status, body.error.message]).toEqual([400, 'The request is not valid: name (json): holds the character U+0000 or half a surrogate pair, which cannot be kept'])
    }
    expect((await registry.call('createToken', { body: { name: 'whole \u{1f600} \\u0000', scopes: ['read'] } })).status).toBe(201)
  })

  it('refuses a body that is too large, whether it says so or not', async () => {
    const body = JSON.stringify({ name: 'x'.repeat(5 * 1024 * 1024) })
    const said = await registry.call('createOrganization', { body })
    expect([said.status, said.body.error.code]).toEqual([413, 'body_too_large'])
    const unsaid = await new Promise<number>((resolve, reject) => {
      const sent = request(`${registry.url}/v1/organizations`, { method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${registry.adminToken}`, 'Transfer-Encoding': 'chunked' } }, (answer) => resolve(answer.statusCode!))
      sent.on('error', reject)
      sent.end(body)
    })
    expect(unsaid).toBe(413)
  })

  it('never shows the words of an inner error', async () => {
    const { db } = registry.server.dependencies
    const token = (await registry.ok('createToken', { body: { name: 'r', scopes: ['runner'] } })).token
    await db.execute(sql`alter schema queue rename to hidden`)
    try {
      const { status, body } = await registry.call('claimJob', { token, body: { kinds: ['ingest'], runner: { name: 'x' } } })
      expect([status, body.error.code]).toEqual([500, 'internal'])
      expect(JSON.stringify(body)).not.toContain('queue')
      const line = registry.log.map((text) => JSON.parse(text)).find(({ requestId }) => requestId === body.error.requestId)
      expect(line).toMatchObject({ level: 'error', method: 'POST', path: '/v1/runner/claim' })
      expect(JSON.stringify(line)).toMatch(/queue\.(queue|job)/)
    } finally {
      await db.execute(sql`alter schema hidden rename to queue`)
    }
  })

  it('says how a body is to be sent', async () => {
    const response = await fetch(`${registry.url}/v1/organizations`, { method: 'POST', headers: { 'Content-Type': 'text/plain', Authorization: `Bearer ${registry.adminToken}` }, body: '{"name":"x"}' })
    const { error } = (await response.json()) as { error: { code: string; message: string } }
    expect([response.status, error.code, error.message]).toEqual([400, 'invalid_request', expect.stringContaining('application/json')])
  })

  if (DEPLOYMENT !== 'edge') it('lets no second server at the same data folder', async () => {
    await expect(startServer({ ...registry.config, port: 0 }, { log: registry.server.dependencies.log, onFatal() {} })).rejects.toThrow(new RegExp(`process ${process.pid}.*${registry.data}.*--data`, 's'))
    expect((await registry.call('getHealth')).status).toBe(200)
  })

  if (DEPLOYMENT !== 'edge') it('names what is wrong with a setting', async () => {
    const { code, stderr } = await runServer(['--port', '70000'])
    expect([code, stderr]).toEqual([1, expect.stringContaining('--port 70000')])
    const wrongUrl = await runServer([], { DATABASE_URL: 'mysql://x' })
    expect([wrongUrl.code, wrongUrl.stderr]).toEqual([1, expect.stringContaining('DATABASE_URL')])
    const nowhere = await runServer(['--data', '/proc/portllm'])
    expect([nowhere.code, nowhere.stderr]).toEqual([1, expect.stringMatching(/data folder \/proc\/portllm cannot be made: ENOENT.*--data/)])
    const { port } = new URL(registry.url)
    const folder = await mkdtemp(join(tmpdir(), 'portllm-test-'))
    const taken = await runServer(['--port', port, '--data', folder])
    expect([taken.code, taken.stderr]).toEqual([1, expect.stringContaining(`port ${port}`)])
    await rm(folder, { recursive: true })
  })
})

// It brings its own database, so one run is enough.
if (DEPLOYMENT === 'embedded') describe('the server process', () => {
  it('shows its first token once, ends on SIGTERM, and is taken over after a crash', { timeout: 90_000 }, async () => {
    const parent = await mkdtemp(join(tmpdir(), 'portllm-test-'))
    const folder = join(parent, 'data')
    try {
      const first = await startProcess(folder)
      // Internal models and signing keys lie in it.
      expect((await stat(folder)).mode & 0o777).toBe(0o700)
      expect(first.ready.bootstrapToken).toMatch(/^plm_/)
      const refused = await runServer(['--data', folder, '--port', '0'])
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(`process ${first.child.pid}`)])
      first.child.kill('SIGTERM')
      expect(await closed(first.child)).toBe(0)

      const second = await startProcess(folder)
      expect(second.ready.bootstrapToken).toBeNull()
      const whoami = await fetch(`${second.ready.url}/v1/whoami`, { headers: { Authorization: `Bearer ${first.ready.bootstrapToken}` } })
      expect(whoami.status).toBe(200)
      second.child.kill('SIGKILL')
      await closed(second.child)

      const third = await startProcess(folder)
      third.child.kill('SIGTERM')
      expect(await closed(third.child)).toBe(0)
    } finally {
      await rm(parent, { recursive: true })
    }
  })
})

function spawnServer(args: readonly string[], environment: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [`${ROOT}api/server.ts`, '--no-runners', ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, DATABASE_URL: '', ...environment } })
}

async function runServer(args: readonly string[], environment?: Record<string, string>): Promise<{ code: number | null; stderr: string }> {
  const child = spawnServer(args, environment)
  let stderr = ''
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  return { code: await closed(child), stderr }
}

async function startProcess(folder: string): Promise<{ child: ChildProcess; ready: { url: string; bootstrapToken: string | null } }> {
  const child = spawnServer(['--data', folder, '--port', '0', '--json'])
  let [out, errors] = ['', '']
  child.stderr!.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  for await (const chunk of child.stdout!) {
    out += String(chunk)
    if (out.includes('\n')) return { child, ready: JSON.parse(out) }
  }
  throw new Error(`the server did not start: ${errors}`)
}

function closed(child: ChildProcess): Promise<number | null> {
  return child.exitCode !== null ? Promise.resolve(child.exitCode) : new Promise((resolve) => child.once('close', resolve))
}
