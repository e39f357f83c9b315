import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { get, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { callerOf, newOrganization, newToken, publish, type Caller } from '../contract/harness.ts'
import { startPostgres, type TestPostgres } from '../setup/postgres.ts'
import { startServerProcess, type ServerProcess } from '../setup/server-process.ts'

/** Far more than the sockets between client and server hold. */
const WEIGHTS = randomBytes(48 * 1024 * 1024)

let postgres: TestPostgres
let data: string
let DATABASE_URL: string
let token: string
let runnerToken: string
let path: string

/** The same registry, started anew for each test. */
async function start(environment: Record<string, string>): Promise<{ server: ServerProcess; registry: Caller }> {
  const server = await startServerProcess(data, { DATABASE_URL, ...environment })
  token ??= server.bootstrapToken!
  return { server, registry: callerOf(server.url, token) }
}

beforeAll(async () => {
  postgres = await startPostgres()
  DATABASE_URL = await postgres.createDatabase()
  data = await mkdtemp(join(tmpdir(), 'portllm-test-'))
  const { server, registry } = await start({})
  const org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: { 'model.safetensors': WEIGHTS } })
  runnerToken = await newToken(registry, ['runner'])
  path = `/v1/models/${org}/base/v1/files/model.safetensors`
  await server.stop()
})
afterAll(async () => {
  await postgres?.stop()
  await rm(data, { recursive: true, force: true })
})

/** The answer to a request on a connection of its own, whose body nobody reads yet. */
async function open(url: string): Promise<IncomingMessage> {
  const [response] = (await once(get(url, { agent: false }), 'response')) as [IncomingMessage]
  return response
}

async function readSlowly(response: IncomingMessage, pause: number): Promise<string> {
  const hash = createHash('sha256')
  let sinceLast = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    hash.update(chunk)
    sinceLast += chunk.length
    if (sinceLast < 4 * 1024 * 1024) continue
    sinceLast = 0
    await sleep(pause)
  }
  return hash.digest('hex')
}

async function statusOf(url: string): Promise<number | string> {
  const response = await fetch(url).catch((error: Error) => (error.cause as NodeJS.ErrnoException).code!)
  if (typeof response === 'string') return response
  await response.arrayBuffer()
  return response.status
}

it('a signal makes it unready, ends who waits for work, refuses new requests, and lets a download end whole', async () => {
  const { server, registry } = await start({ PORTLLM_DRAIN_SECONDS: '2', PORTLLM_GRACE_SECONDS: '60' })
  try {
    expect(await (await fetch(`${server.url}/readyz`)).json()).toEqual({ status: 'ready', parts: { database: 'ok', queue: 'ok', blobs: 'ok' } })
    const download = await open(`${server.url}${path}`)
    const started = Date.now()
    const waiting = registry.call('claimJob', { token: runnerToken, body: { kinds: ['merge'], waitSeconds: 30, runner: { name: 'test' } } })
    await sleep(300)

    server.child.kill('SIGTERM')
    await server.logged('The server is ending')
    const unready = await fetch(`${server.url}/readyz`)
    expect([unready.status, ((await unready.json()) as { status: string }).status]).toEqual([503, 'draining'])
    // Load balancers may not know it yet.
    expect(await statusOf(`${server.url}/v1/health`)).toBe(200)
    expect((await waiting).status).toBe(204)
    expect(Date.now() - started).toBeLessThan(10_000)

    await sleep(2_500)
    expect(await statusOf(`${server.url}/v1/health`)).toBe('ECONNREFUSED')
    expect(await readSlowly(download, 100)).toBe(createHash('sha256').update(WEIGHTS).digest('hex'))
    expect(await server.ended).toEqual({ code: 0, signal: null })
    expect(server.log.filter((line) => /"level":"(warn|error|fatal)"/.test(line))).toEqual([])
  } finally {
    server.child.kill('SIGKILL')
  }
})

it('what takes longer than its grace is cut off, and that is logged', async () => {
  const { server } = await start({ PORTLLM_GRACE_SECONDS: '1' })
  const download = await open(`${server.url}${path}`)
  server.child.kill('SIGTERM')
  expect(await server.ended).toEqual({ code: 0, signal: null })
  await expect(readSlowly(download, 0)).rejects.toThrow('aborted')
  expect(JSON.parse(await server.logged('cut off'))).toMatchObject({ level: 'warn', requests: 1 })
  expect(server.log.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'Request')).toMatchObject([{ route: '/v1/models/:org/:name/:version/files/:path{.+}', status: 200, isCut: true }])
})

it('a second signal ends it at once', async () => {
  const { server } = await start({ PORTLLM_DRAIN_SECONDS: '60' })
  server.child.kill('SIGTERM')
  await server.logged('The server is ending')
  server.child.kill('SIGTERM')
  expect(await server.ended).toEqual({ code: null, signal: 'SIGTERM' })
})
