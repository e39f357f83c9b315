import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newOrganization, publish, startTestRegistry, upload, type TestRegistry } from '../contract/harness.ts'
import { startPostgres, type TestPostgres } from '../setup/postgres.ts'
import { startCollector, type Collector } from './collector.ts'

const WEIGHTS = Buffer.alloc(300_000, 'w')

let postgres: TestPostgres
let collector: Collector
let registry: TestRegistry
let org: string

beforeAll(async () => {
  postgres = await startPostgres()
  collector = await startCollector()
  registry = await startTestRegistry({ databaseUrl: await postgres.createDatabase(), metricsPort: 0, tracesEndpoint: collector.url })
  org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: { 'model.safetensors': WEIGHTS } })
})
afterAll(async () => {
  await registry?.close()
  collector?.close()
  await postgres?.stop()
})

/** The samples of a metric: their labels as Prometheus writes them, and their values. */
async function samples(name: string): Promise<Map<string, number>> {
  const text = await (await fetch(`${registry.server.metricsUrl}/metrics`)).text()
  return new Map([...text.matchAll(new RegExp(`^${name}(\\{.*\\})? (\\S+)$`, 'gm'))].map(([, labels = '', value]) => [labels, Number(value)]))
}

async function send(path: string, init?: RequestInit): Promise<number> {
  const response = await fetch(`${registry.url}${path}`, init)
  await response.arrayBuffer()
  return response.status
}

describe('metrics', () => {
  it('are not on the listener of the API', async () => {
    expect(await send('/metrics')).toBe(404)
    const response = await fetch(`${registry.server.metricsUrl}/metrics`)
    expect([response.status, response.headers.get('content-type')]).toEqual([200, expect.stringMatching(/^text\/plain; version=0\.0\.4/)])
    expect(await response.text()).toContain('process_cpu_seconds_total')
  })

  it('count requests and bytes by route', async () => {
    const route = '/v1/models/:org/:name/:version/files/:path{.+}'
    const figures = async () => ({
      count: (await samples('portllm_http_request_duration_seconds_count')).get(`{method="GET",route="${route}",status="200"}`) ?? 0,
      bytes: (await samples('portllm_http_sent_bytes_total')).get(`{route="${route}"}`) ?? 0,
    })
    const before = await figures()
    expect(await send(`/v1/models/${org}/base/v1/files/model.safetensors`)).toBe(200)
    // The server counts an answer when it is through with it, which the client does not wait for.
    await expect.poll(async () => (await figures()).count - before.count).toBe(1)
    const bytes = (await figures()).bytes - before.bytes
    expect(bytes).toBeGreaterThanOrEqual(WEIGHTS.length)
    expect(bytes).toBeLessThan(WEIGHTS.length + 2000)
  })

  it('have as many time series as the code has routes, whatever is asked', async () => {
    const ask = async (word: string) => {
      for (const path of [`/v1/models/${word}/x`, `/v1/${word}`, `/${word}`, `/${word}/${word}/${word}/${word}`, `/v1/models?organization=${word}`]) {
        for (const method of ['GET', 'HEAD', 'DELETE', 'PROPFIND']) await send(path, { method })
      }
    }
    await ask('first')
    const series = async () => [...(await samples('portllm_http_request_duration_seconds_count')).keys(), ...(await samples('portllm_http_sent_bytes_total')).keys()]
    const known = await series()
    for (let i = 0; i < 20; i++) await ask(`word-${i}`)
    expect(await series()).toEqual(known)
    expect(known.join()).toContain('route="unmatched"')
    expect(known.join()).toContain('method="OTHER"')
    expect(known.join()).not.toContain('first')
  })

  it('tell what waits in the queue, and the connections', async () => {
    expect(await samples('portllm_jobs')).toEqual(new Map())
    await upload(registry, { kind: 'model', org, name: 'waiting', version: 'v1', files: { 'model.safetensors': 'x' } })
    expect(await samples('portllm_jobs')).toEqual(new Map([['{kind="ingest",state="queued"}', 1]]))
    const age = (await samples('portllm_oldest_job_seconds')).get('{kind="ingest",state="queued"}')!
    expect(age).toBeGreaterThanOrEqual(0)
    expect(age).toBeLessThan(30)
    const connections = [...(await samples('portllm_database_connections')).values()].reduce((sum, count) => sum + count, 0)
    expect(connections).toBeGreaterThan(0)
    expect(connections).toBeLessThanOrEqual((await samples('portllm_database_connections_max')).get('')!)
  })
})

it('a trace goes on from the client to the database and the blob store, and holds no secret', async () => {
  const [traceId, parentId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331']
  const headers = { traceparent: `00-${traceId}-${parentId}-01`, Authorization: `Bearer ${registry.adminToken}` }
  expect(await send(`/v1/models/${org}/base/v1/files/model.safetensors`, { headers })).toBe(200)
  const { files: [{ parts: [{ url }] }] } = await registry.ok('draftModelVersion', { params: { org, name: 'signed', version: 'v1' }, body: { files: [{ path: 'a', size: 1, sha256: '0'.repeat(64) }] } })
  await fetch(url, { method: 'PUT', body: 'x' })
  await registry.server.close()

  const trace = collector.spans.filter((span) => span.traceId === traceId)
  const [server] = trace.filter(({ parentSpanId }) => parentSpanId === parentId)
  expect(server).toMatchObject({
    name: 'GET /v1/models/:org/:name/:version/files/:path{.+}',
    attributes: { 'http.route': '/v1/models/:org/:name/:version/files/:path{.+}', 'http.response.status_code': 200, 'url.path': `/v1/models/${org}/base/v1/files/model.safetensors` },
  })
  const below = trace.filter(({ parentSpanId }) => parentSpanId === server!.spanId)
  expect(below.map(({ name }) => name)).toEqual(expect.arrayContaining(['query select', 'blobs.read']))
  expect(below.find(({ name }) => name === 'query select')!.attributes['db.query.text']).toMatch(/^select .*\$1/)
  // Another client's request is another trace, and what nobody asked for, such as the watch over jobs, none.
  expect(new Set(collector.spans.filter(({ parentSpanId }) => parentSpanId === undefined).map(({ name }) => name.split(' ')[0]))).not.toContain('query')
  const sent = collector.bodies.join()
  for (const secret of [registry.adminToken, new URL(url).searchParams.get('signature')!]) expect(sent).not.toContain(secret)
  expect(sent).toContain('/blobs/uploads/')
})
