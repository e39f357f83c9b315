import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT } from '../setup/registry.ts'
import { newOrganization, newUser, operations, startTestRegistry, upload, type Answer, type Files, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let org: string

beforeAll(async () => {
  registry = await startTestRegistry({ startRunners: true })
  org = await newOrganization(registry)
  await publishFixture('model', 'llama/base', 'tiny', '1.0')
  await publishFixture('model', 'llama/evolved', 'tiny', '2.0', { parent: { reference: `${org}/tiny@1.0`, kind: 'continued-pretraining' } })
  await publishFixture('model', 'gemma2/base', 'gemma', '1.0')
  await publishFixture('patch', 'llama/patch-kind', 'kind', '1.0.0', { base: `${org}/tiny@1.0` })
})
afterAll(() => registry.close())

/** Publishes a folder of tests/fixtures by the API alone, with the real runner. */
async function publishFixture(kind: 'model' | 'patch', fixture: string, name: string, version: string, more: Record<string, unknown> = {}, changes: Files = {}): Promise<void> {
  const folder = join(ROOT, 'tests/fixtures', fixture)
  const files = Object.fromEntries(await Promise.all((await readdir(folder)).map(async (path) => [path, await readFile(join(folder, path))] as const)))
  const { job } = await upload(registry, { kind, org, name, version, files: { ...files, ...changes }, ...more })
  expect((await lastEvent(job.id)).state).toBe('succeeded')
}

/** Every event of a job's stream, which ends with the job. */
async function events(id: string): Promise<any[]> {
  const response = await fetch(`${registry.url}/v1/jobs/${id}/events`, { headers: { Authorization: `Bearer ${registry.adminToken}` } })
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  const seen: any[] = []
  for await (const { event, data } of response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())) if (event === 'job') seen.push(JSON.parse(data))
  return seen
}

async function lastEvent(id: string): Promise<any> {
  return (await events(id)).at(-1)
}

function getMerged(version: string, patch: string, more: { headers?: Record<string, string>; token?: string | null; name?: string } = {}) {
  const { name = 'tiny', ...rest } = more
  return registry.call('getMerged', { params: { org, name, version }, query: { patch: `${org}/${patch}` }, ...rest })
}

describe('resolve', () => {
  it.each([
    ['tiny@1.0', 'kind', 'identical'],
    ['tiny@2.0', 'kind@^1', 'portable'],
    ['tiny@2.0', 'kind@latest:0.5', 'portable'],
    ['gemma@1.0', 'kind@1.0.0', 'incompatible'],
  ])('says of %s and %s: %s', async (target, patch, verdict) => {
    const answer = await registry.ok('resolvePatches', { query: { target: `${org}/${target}`, patch: `${org}/${patch}` }, token: null })
    expect(answer).toMatchObject({ verdict, target: { reference: `${org}/${target}` }, patches: [{ reference: `${org}/kind@1.0.0`, verdict, base: { reference: `${org}/tiny@1.0` } }] })
    expect(answer.derivation === null).toBe(verdict === 'incompatible')
  })

  it.each([['kind@^2', 404, 'not_found'], ['none', 404, 'not_found'], ['kind@>=', 400, 'invalid_reference'], ['kind:heavy', 400, 'invalid_reference'], ['kind:0', 400, 'invalid_reference']])('refuses %s with %i %s', async (patch, status, code) => {
    const answer = await registry.call('resolvePatches', { query: { target: `${org}/tiny@2.0`, patch: `${org}/${patch}` } })
    expect([answer.status, answer.body.error.code]).toEqual([status, code])
  })
})

describe('a merged model', () => {
  it('is a job at first, whose stream ends with it, and then a manifest', async () => {
    const asked = await getMerged('2.0', 'kind@^1')
    const { derivation, job } = asked.body
    expect([asked.status, asked.headers.get('location'), asked.headers.get('retry-after')]).toEqual([202, `/v1/jobs/${job.id}`, '1'])
    expect((await getMerged('2.0', 'kind')).body.job.id).toBe(job.id)

    const seen = await events(job.id)
    expect(seen.at(-1)).toMatchObject({ id: job.id, kind: 'merge', state: 'succeeded', subject: { kind: 'derivation', reference: derivation } })
    const order = ['queued', 'running', 'succeeded']
    const states = seen.map(({ state }) => order.indexOf(state))
    expect(states).toEqual([...states].sort())
    expect(await registry.ok('getJob', { params: { id: job.id } })).toEqual(seen.at(-1))
    expect((await registry.ok('listJobs', { query: { kind: 'merge', state: 'succeeded' } })).items[0].id).toBe(job.id)

    const ready = await getMerged('2.0', 'kind@1.0.0', { token: null })
    expect([ready.status, ready.body.id, ready.body.state]).toEqual([200, derivation, 'ready'])
    expect(await registry.ok('getDerivation', { params: { id: derivation } })).toEqual(ready.body)
    expect((await registry.ok('resolvePatches', { query: { target: `${org}/tiny@2.0`, patch: `${org}/kind` } }))).toMatchObject({ derivation, merged: 'ready' })
    expect((await registry.ok('getDerivationManifest', { params: { id: derivation } })).files.map(({ path, etag }: any) => [path, etag])).toEqual(ready.body.files.map(({ path, etag }: any) => [path, etag]))

    const page = await fetch(ready.body.page)
    expect([page.status, await page.text()]).toEqual([200, expect.stringContaining(`portllm get ${org}/tiny@2.0 --patch ${org}/kind@1.0.0`)])
  })

  it('is waited for with Prefer: wait', async () => {
    const { status, headers, body } = await getMerged('2.0', 'kind:0.5', { headers: { Prefer: 'respond-async, wait=30' } })
    expect([status, headers.get('preference-applied'), body.patches?.[0].weight]).toEqual([200, 'wait=30', 0.5])
  })

  it('that cannot be is refused with every reason, and nobody starts one without a token', async () => {
    const refused = await getMerged('1.0', 'kind', { name: 'gemma' })
    expect([refused.status, refused.body.error.code]).toEqual([422, 'incompatible'])
    expect(refused.body.error.details.reasons).toContainEqual(expect.objectContaining({ code: 'shape-mismatch', severity: 'refusal', tensor: expect.any(String), expected: '[128, 128]', found: '[64, 128]' }))
    expect((await getMerged('2.0', 'kind:0.25', { token: null })).status).toBe(401)
  })
})

describe('a merge that reads a base', () => {
  const outcome = ({ status, body }: Answer) => [status, body?.error?.code]
  const perDerivation = operations.filter(({ path }) => path.startsWith('/v1/derivations/{id}'))

  it('which the caller may not see does not exist for it: neither the merge, nor its files, receipt and job, nor an analysis', async () => {
    // PiSSA, so that the base is an input; an own file, so that it is not another version's digest.
    const config = JSON.parse(await readFile(join(ROOT, 'tests/fixtures/llama/patch-kind/adapter_config.json'), 'utf8'))
    await publishFixture('model', 'llama/base', 'secret', '1.0', { visibility: 'internal' }, { 'README.md': 'A secret base.' })
    await publishFixture('patch', 'llama/patch-kind', 'pissa', '1.0.0', { base: `${org}/secret@1.0` }, { 'adapter_config.json': JSON.stringify({ ...config, init_lora_weights: 'pissa' }) })
    const member = await newUser(registry, { organization: org, role: 'reader', scopes: ['read'] })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    const [target, patch] = [await registry.ok('getModelVersion', { params: { org, name: 'tiny', version: '2.0' }, token: stranger }), await registry.ok('getPatchVersion', { params: { org, name: 'pissa', version: '1.0.0' }, token: stranger })]
    const byDigest = (token: string | null) => registry.call('requestDerivation', { body: { target: target.digest, patches: [{ digest: patch.digest }] }, token })
    const analyse = (token: string) => registry.call('requestAnalysis', { body: { patch: `${org}/pissa`, target: `${org}/tiny@2.0` }, token })
    const ask = async () => {
      const answers = [await getMerged('2.0', 'pissa', { token: stranger }), await getMerged('2.0', 'pissa', { token: null }), await byDigest(stranger), await analyse(stranger)]
      for (const answer of answers) expect(outcome(answer)).toEqual([404, 'not_found'])
      return answers.map(({ body }) => body.error.message)
    }

    const before = await ask()
    const { body: merged } = await getMerged('2.0', 'pissa', { headers: { Prefer: 'wait=60' } })
    expect(merged).toMatchObject({ state: 'ready', rules: ['lora-f32/1', 'pissa-f64/1'], patches: [{ base: expect.stringMatching(/^sha256:/) }] })
    expect(await ask()).toEqual(before)

    const path = merged.files.find((file: any) => file.changed).path
    const none = '0'.repeat(64)
    const words = ({ body }: Answer) => body?.error?.message.replaceAll(merged.id, none)
    expect(perDerivation.map(({ operationId }) => operationId)).toEqual(expect.arrayContaining(['getDerivation', 'getDerivationManifest', 'getDerivationPlan', 'getReceipt', 'getDerivationFile', 'headDerivationFile', 'setDerivationStorage']))
    for (const { operationId, method } of perDerivation) {
      const call = (id: string, token: string | null) => registry.call(operationId!, { params: { id, path }, token, ...(method === 'put' && { body: { storage: 'materialised' } }) })
      for (const token of method === 'put' ? [stranger] : [stranger, null]) {
        const [seen, absent] = [await call(merged.id, token), await call(none, token)]
        expect([operationId, seen.status, words(seen)]).toEqual([operationId, 404, words(absent)])
      }
      expect([operationId, (await call(merged.id, member)).status]).toEqual([operationId, method === 'put' ? 403 : 200])
    }
    for (const id of [merged.job.id, crypto.randomUUID()]) expect(outcome(await registry.call('getJob', { params: { id }, token: stranger }))).toEqual([404, 'not_found'])

    for (const answer of [await getMerged('2.0', 'pissa', { token: member }), await byDigest(member)]) expect([answer.status, answer.body.id]).toEqual([200, merged.id])
    const file = await registry.call('headDerivationFile', { params: { id: merged.id, path }, token: member })
    expect(file.headers.get('cache-control')).toContain('private')
    expect((await analyse(member)).status).toBe(202)
  })

  it('is for everybody where the merge does not read the base, though that be out of sight', async () => {
    await publishFixture('patch', 'llama/patch-kind', 'plain', '1.0.0', { base: `${org}/secret@1.0` }, { 'README.md': 'Trained on a secret base.' })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'reader', scopes: ['read'] })
    const { status, body } = await getMerged('2.0', 'plain', { token: stranger, headers: { Prefer: 'wait=60' } })
    expect([status, body.patches[0].base]).toEqual([200, null])
    expect((await registry.call('getReceipt', { params: { id: body.id }, token: null })).status).toBe(200)
    expect(outcome(await registry.call('requestAnalysis', { body: { patch: `${org}/plain`, target: `${org}/tiny@2.0` }, token: stranger }))).toEqual([404, 'not_found'])
  })
})

describe('what people look at', () => {
  it.each(['/', '/models/ORG/tiny', '/models/ORG/tiny/2.0', '/patches/ORG/kind'])('%s is a page that runs no foreign script', async (path) => {
    const response = await fetch(registry.url + path.replace('ORG', org))
    expect([response.status, response.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/html')])
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(await response.text()).toContain(org)
  })

  it('/docs shows the document of the routes', async () => {
    expect(await (await fetch(`${registry.url}/docs`)).text()).toContain('/openapi.json')
    const document = (await (await fetch(`${registry.url}/openapi.json`)).json()) as any
    expect(document.paths['/v1/models/{org}/{name}/{version}/merged'].get.operationId).toBe('getMerged')
  })
})
