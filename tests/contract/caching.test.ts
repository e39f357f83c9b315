import { afterAll, beforeAll, expect, it } from 'vitest'
import { newOrganization, publish, startTestRegistry, type TestRegistry } from './harness.ts'

// The harness looks at what every answer of the suite says of caching, credentials.test.ts at every operation's refusals.
let registry: TestRegistry
let model: { org: string; name: string; version: string }
beforeAll(async () => {
  registry = await startTestRegistry()
  model = { org: await newOrganization(registry), name: 'base', version: 'v1' }
  await publish(registry, { kind: 'model', ...model, files: { 'config.json': '{}', 'model.safetensors': 'w' } })
  await registry.ok('updateModel', { params: model, body: { visibility: 'public' } })
})
afterAll(() => registry.close())

it('what never changes is shared by caches only as long as nobody says who asks', async () => {
  const address = `${registry.url}/v1/models/${model.org}/base/v1`
  for (const [path, shared] of [['/files/config.json', true], ['/manifest', true], ['', false], ['/plan', false]] as const) {
    const [open, known] = await Promise.all([fetch(address + path), fetch(address + path, { headers: { Authorization: `Bearer ${registry.adminToken}` } })])
    expect([path, open.status, known.status]).toEqual([path, 200, 200])
    expect([path, open.headers.get('cache-control')?.startsWith('public, max-age=31536000, immutable, no-transform')]).toEqual([path, shared])
    expect([path, known.headers.get('cache-control')]).toEqual([path, expect.stringMatching(/^private/)])
    await Promise.all([open.arrayBuffer(), known.arrayBuffer()])
  }
})

it('pages, the API\'s description and what is not there say so too', async () => {
  const caching = async (path: string) => (await fetch(`${registry.url}${path}`)).headers.get('cache-control')
  expect(await Promise.all(['/', '/docs', '/openapi.json', `/models/${model.org}/base`, '/v1/nothing', '/models/no/one'].map(caching))).toEqual(['no-cache', 'no-cache', 'no-cache', 'no-cache', 'no-store', 'no-store'])
})
