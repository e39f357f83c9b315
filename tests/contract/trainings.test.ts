import { eq } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { audit } from '../../db/schema.ts'
import { claimIngest, fileList, newOrganization, newToken, newUser, publish, putFiles, runIngest, sha256, startTestRegistry, upload, type Answer, type Files, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let runner: string
beforeAll(async () => {
  registry = await startTestRegistry()
  runner = await newToken(registry, ['runner'])
})
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body?.error?.code]
const BASE = { 'config.json': '{"model_type":"llama"}', 'tokenizer.json': '{"tokens":[]}', 'model.safetensors': Buffer.alloc(64, 'base') }
const ADAPTER = { 'adapter_config.json': '{}', 'adapter_model.safetensors': Buffer.alloc(40, 'a'), 'README.md': '# Trained', 'training.json': '{"steps":3}' }
const EVOLVED = { ...BASE, 'model.safetensors': Buffer.alloc(64, 'evolved'), 'training.json': '{"steps":3}' }

/** An organization with the model `base@v1`. */
async function withBase(more: Record<string, unknown> = {}): Promise<string> {
  const org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: BASE, ...more })
  return org
}

function finetune(org: string, body: Record<string, unknown> = {}, token?: string | null): Promise<Answer> {
  return registry.call('requestFinetune', { body: { patch: `${org}/triage@1.0.0`, base: `${org}/base@v1`, task: 'boolq', ...body }, ...(token !== undefined && { token }) })
}

function evolve(org: string, body: Record<string, unknown> = {}, token?: string | null): Promise<Answer> {
  return registry.call('requestEvolution', { body: { model: `${org}/base@v2`, parent: `${org}/base@v1`, config: 'datasets: [{path: a/b, type: completion}]', ...body }, ...(token !== undefined && { token }) })
}

async function claim(kind: string): Promise<any> {
  const { status, body } = await registry.call('claimJob', { token: runner, body: { kinds: [kind], waitSeconds: 8, runner: { name: 'test' } } })
  if (status !== 200) throw new Error(`no ${kind} job is waiting (${status})`)
  return body
}

const record = { task: 'boolq', data: { source: 'hub', digest: 'abc', examples: 9 }, options: { rank: 8, nested: { a: [1] } }, versions: { peft: '0.18' }, curve: [{ step: 1, epoch: 0.5, loss: 2.5, learning_rate: 1e-4 }], steps: 3, peak_memory_bytes: 1e9, wall_seconds: 4, device_seconds: 4, device: 'cpu' }

function announce({ job, token }: any, files: Files): Promise<Answer> {
  return registry.call('requestOutputs', { params: { id: job.id }, token, body: { files: fileList(files) } })
}

async function send(claimed: any, files: Files): Promise<void> {
  const plan = await announce(claimed, files)
  expect(plan.status).toBe(200)
  expect((await putFiles(plan.body, files)).every((status) => status === 200)).toBe(true)
}

function complete({ job, token }: any, files: Files, training: unknown = record): Promise<Answer> {
  return registry.call('completeJob', { params: { id: job.id }, token, body: { result: { training, files: fileList(files) } } })
}

function fail({ job, token }: any, failure: Record<string, unknown> = {}): Promise<Answer> {
  return registry.ok('failJob', { params: { id: job.id }, token, body: { code: 'nan_loss', message: 'The loss is NaN at step 7: lower --lr.', retryable: false, ...failure } })
}

const patchVersion = (org: string, token?: string | null) => registry.call('getPatchVersion', { params: { org, name: 'triage', version: '1.0.0' }, ...(token !== undefined && { token }) })

async function actionsOn(subject: string): Promise<string[]> {
  const rows = await registry.server.dependencies.db.select({ action: audit.action }).from(audit).where(eq(audit.subject, subject)).orderBy(audit.id)
  return rows.map(({ action }) => action)
}

describe('a fine-tuning', () => {
  it('reserves its version, trains it, and has it verified and published with its training', async () => {
    const org = await withBase()
    const asked = await finetune(org, { options: { rank: 4, max_steps: 3 }, tag: 'next', description: 'For triage.', visibility: 'internal' })
    expect([asked.status, asked.headers.get('location'), asked.body.reference]).toEqual([202, `/v1/jobs/${asked.body.job.id}`, `${org}/triage@1.0.0`])
    expect(asked.body.job).toMatchObject({ kind: 'finetune', state: 'queued', subject: { kind: 'patch-version', reference: `${org}/triage@1.0.0` } })
    const reserved = await patchVersion(org)
    expect(reserved.body).toMatchObject({ state: 'draft', base: { reference: `${org}/base@v1` }, training: { spec: { base: `${org}/base@v1`, task: 'boolq', taskFile: null, data: null, options: { rank: 4, max_steps: 3, lr: 1e-4, lora_alpha: 16, num_epochs: 10 } }, record: null, job: { id: asked.body.job.id } } })
    expect(codeOf(await patchVersion(org, null))).toEqual([404, 'not_found'])
    const again = await finetune(org, { options: { rank: 4, max_steps: 3 }, tag: 'next' })
    expect([again.status, again.body.job.id]).toEqual([202, asked.body.job.id])

    const claimed = await claim('finetune')
    expect(claimed.spec).toMatchObject({ kind: 'finetune', baseName: `${org}/base@v1`, task: 'boolq', taskFile: null, data: null, options: { rank: 4, target_modules: null } })
    expect(claimed.spec.base.map(({ path, sha256: digest }: any) => [path, digest])).toEqual(fileList(BASE).map((file) => [file.path, file.sha256]).sort())
    for (const { extents, sha256: digest } of claimed.spec.base) {
      expect(sha256(Buffer.from(await (await fetch(extents[0].get.url, { headers: extents[0].get.headers })).arrayBuffer()))).toBe(digest)
    }
    await registry.ok('reportProgress', { params: { id: claimed.job.id }, token: claimed.token, body: { progress: { phase: 'training', done: 1, total: 3, unit: 'steps' } } })
    await send(claimed, ADAPTER)
    expect((await complete(claimed, ADAPTER)).status).toBe(204)
    const verifying = (await patchVersion(org)).body
    expect([verifying.state, verifying.training.job.state, verifying.training.record]).toEqual(['verifying', 'succeeded', record])
    expect((await runIngest(registry, { readme: '# Trained' })).status).toBe(204)

    const published = (await patchVersion(org)).body
    expect(published).toMatchObject({ state: 'published', training: { record: { steps: 3, curve: [{ loss: 2.5 }] } } })
    expect(published.files.map(({ path }: any) => path)).toEqual(Object.keys(ADAPTER).sort((a, b) => (a < b ? -1 : 1)))
    expect((await registry.ok('getPatch', { params: { org, name: 'triage' } }))).toMatchObject({ description: 'For triage.', visibility: 'internal', distTags: { next: '1.0.0' }, readme: '# Trained' })
    expect(await actionsOn(`${org}/triage@1.0.0`)).toEqual(['patch-version.train', 'patch-version.verify', 'patch-version.publish'])
    expect(codeOf(await finetune(org, { options: { rank: 4, max_steps: 3 }, tag: 'next' }))).toEqual([409, 'version_exists'])
    // What was uploaded has no training.
    expect((await registry.ok('getModelVersion', { params: { org, name: 'base', version: 'v1' } })).training).toBeNull()
  })

  it('that fails leaves its version rejected with the reason; it may be asked for again, or uploaded', async () => {
    const org = await withBase()
    await finetune(org)
    const claimed = await claim('finetune')
    await send(claimed, ADAPTER)
    await fail(claimed)
    const rejected = (await patchVersion(org)).body
    expect(rejected).toMatchObject({ state: 'rejected', rejection: [{ code: 'nan_loss', message: 'The loss is NaN at step 7: lower --lr.' }], training: { job: { state: 'failed', failure: { code: 'nan_loss' } } } })
    const again = await finetune(org, { options: { lr: 1e-5 } })
    expect([again.status, again.body.job.id === claimed.job.id]).toEqual([202, false])
    expect((await patchVersion(org)).body).toMatchObject({ state: 'draft', rejection: null, training: { spec: { options: { lr: 1e-5 } }, record: null } })
    await fail(await claim('finetune'))
    expect(await actionsOn(`${org}/triage@1.0.0`)).toEqual(['patch-version.train', 'patch-version.reject', 'patch-version.train', 'patch-version.reject'])
    await publish(registry, { kind: 'patch', org, name: 'triage', version: '1.0.0', base: `${org}/base@v1`, files: ADAPTER })
    expect((await patchVersion(org)).body.state).toBe('published')
  })

  it('has its draft to itself: nobody drafts, completes or trains it otherwise meanwhile', async () => {
    const org = await withBase()
    const { job } = (await finetune(org)).body
    const params = { org, name: 'triage', version: '1.0.0' }
    for (const refused of [
      await registry.call('draftPatchVersion', { params, body: { files: fileList(ADAPTER), base: `${org}/base@v1` } }),
      await registry.call('completePatchUpload', { params }),
      await finetune(org, { task: 'sst2' }),
    ]) {
      expect(codeOf(refused)).toEqual([409, 'version_exists'])
      expect(refused.body.error).toMatchObject({ message: expect.stringContaining(job.id), details: { job: job.id } })
    }
    await fail(await claim('finetune'))
    // And the other way round: it does not take another's draft.
    const publisher = await newUser(registry, { organization: org, role: 'publisher', scopes: ['read', 'publish'] })
    await registry.ok('draftPatchVersion', { params: { ...params, version: '2.0.0' }, body: { files: fileList(ADAPTER), base: `${org}/base@v1` } })
    expect(codeOf(await finetune(org, { patch: `${org}/triage@2.0.0` }, publisher))).toEqual([409, 'version_exists'])
    expect((await finetune(org, { patch: `${org}/triage@2.0.0` })).status).toBe(202)
    await fail(await claim('finetune'))
    await upload(registry, { kind: 'patch', org, name: 'triage', version: '3.0.0', base: `${org}/base@v1`, files: ADAPTER })
    expect(codeOf(await finetune(org, { patch: `${org}/triage@3.0.0` }))).toEqual([409, 'version_exists'])
    await runIngest(registry)
  })

  it('takes only the files that this attempt has sent, and from the attempt that holds the job', async () => {
    const org = await withBase()
    await finetune(org)
    const first = await claim('finetune')
    expect(codeOf(await complete(first, ADAPTER))).toEqual([400, 'invalid_request'])
    const plan = await announce(first, ADAPTER)
    expect(codeOf(await complete(first, ADAPTER))).toEqual([409, 'upload_incomplete'])
    await putFiles(plan.body, ADAPTER)
    // Asked again, the same files need not be sent again.
    expect((await announce(first, ADAPTER)).body.files.flatMap(({ parts }: any) => parts.map(({ stored }: any) => stored))).toEqual([true, true, true, true])
    expect(codeOf(await complete(first, { ...ADAPTER, 'README.md': 'other' }))).toEqual([400, 'invalid_request'])
    expect(codeOf(await complete(first, ADAPTER, { ...record, curve: [{ step: 1, epoch: 1, loss: null, learning_rate: 0 }] }))).toEqual([400, 'invalid_request'])
    expect(codeOf(await announce(first, { '../x': '' }))).toEqual([400, 'invalid_reference'])
    await fail(first, { code: 'runner_stopped', message: 'The runner was stopped.', retryable: true })
    expect((await patchVersion(org)).body.state).toBe('draft')

    const second = await claim('finetune')
    expect(second.job).toEqual({ ...first.job, attempt: 2 })
    expect([codeOf(await announce(first, ADAPTER)), codeOf(await complete(first, ADAPTER))]).toEqual([[409, 'stale_attempt'], [409, 'stale_attempt']])
    const other = { ...ADAPTER, 'adapter_model.safetensors': Buffer.alloc(40, 'b') }
    await send(second, other)
    expect((await complete(second, other)).status).toBe(204)
    expect([codeOf(await announce(second, other)), codeOf(await complete(second, other))]).toEqual([[409, 'stale_attempt'], [409, 'stale_attempt']])
    const ingest = await claimIngest(registry)
    expect(ingest.spec.files.map(({ sha256: digest }: any) => digest).sort()).toEqual(fileList(other).map((file) => file.sha256).sort())
    await registry.ok('failJob', { params: { id: ingest.job.id }, token: ingest.token, body: { code: 'x', message: 'x', retryable: false } })
  })

  it('is for who may publish, on what they may see, and says what is wrong', async () => {
    const org = await withBase({ visibility: 'internal' })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    const theirs = await withBase()
    const reader = await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish', 'admin'] })
    const publisher = await newUser(registry, { organization: org, role: 'publisher', scopes: ['read', 'publish'] })
    expect(codeOf(await finetune(org, {}, null))).toEqual([401, 'unauthenticated'])
    expect(codeOf(await finetune(org, {}, reader))).toEqual([403, 'forbidden'])
    expect(codeOf(await finetune(org, {}, stranger))).toEqual([404, 'not_found'])
    expect(codeOf(await finetune(theirs, {}, publisher))).toEqual([403, 'forbidden'])
    // A base that one may not see does not exist, nor does data of others.
    const mine = await newOrganization(registry)
    const member = await newUser(registry, { organization: mine, role: 'publisher', scopes: ['read', 'publish'] })
    const [hidden, absent] = [await finetune(mine, { base: `${org}/base@v1` }, member), await finetune(mine, { base: `${org}/none@v1` }, member)]
    expect([codeOf(hidden), codeOf(absent)]).toEqual([[404, 'base_not_found'], [404, 'base_not_found']])
    expect(hidden.body.error.message.replaceAll('/base@', '/none@')).toBe(absent.body.error.message)
    expect(codeOf(await finetune(mine, { base: `${theirs}/base@v1`, data: `${org}/notes` }, member))).toEqual([404, 'not_found'])
    for (const [body, code, message] of [
      [{ task: null }, 'invalid_request', /Name a task/], [{ task: '../x' }, 'invalid_request', /no name of a task/], [{ options: { rank: 0 } }, 'invalid_request', /options.rank/], [{ options: { learning: 1 } }, 'invalid_request', /options/],
      [{ taskFile: 'task: other' }, 'invalid_request', /holds the task other/], [{ task: null, taskFile: 'task: a\ninclude: b' }, 'invalid_request', /key "include"/],
      [{ patch: `${org}/triage` }, 'invalid_reference', /names no version/], [{ patch: `${org}/triage@one` }, 'invalid_name', /semantic version/], [{ base: `${org}/base` }, 'invalid_reference', /names no version/],
    ] as const) {
      const answer = await finetune(org, body, publisher)
      expect([...codeOf(answer), answer.body.error.message]).toEqual([400, code, expect.stringMatching(message)])
    }
    expect(codeOf(await patchVersion(org))).toEqual([404, 'not_found'])
    expect((await finetune(org, { task: null, taskFile: 'task: notes', data: `${org}/notes` }, publisher)).status).toBe(202)
    const claimed = await claim('finetune')
    expect(claimed.spec).toMatchObject({ task: 'notes', taskFile: 'task: notes', data: { folder: `${org}/notes` } })
    await fail(claimed)
  })
})

describe('data of the registry', () => {
  const ROWS = { 'train.jsonl': '{"text":"a"}\n', 'README.md': '# Notes' }
  const publishNotes = (org: string, more: Record<string, unknown> = {}) => publish(registry, { kind: 'dataset', org, name: 'notes', version: '1.0', files: ROWS, ...more })

  it('reach the runner as just these files, and the version tells their digest', async () => {
    const org = await withBase()
    await publishNotes(org)
    const { digest } = await registry.ok('getDatasetVersion', { params: { org, name: 'notes', version: '1.0' } })
    // The name is kept as it was published.
    const asked = await finetune(org, { data: `${org}/NOTES@1.0` })
    expect(asked.status).toBe(202)
    const { spec, job, token } = await claim('finetune')
    expect(spec.data).toEqual({ dataset: `${org}/notes@1.0`, digest, files: expect.any(Array) })
    expect(spec.data.files.map(({ path, sha256: of }: any) => [path, of]).sort()).toEqual(fileList(ROWS).map((file) => [file.path, file.sha256]).sort())
    for (const { path, extents: [{ get }] } of spec.data.files) {
      const response = await fetch(get.url, { headers: get.headers })
      expect([response.status, await response.text()]).toEqual([206, ROWS[path as keyof typeof ROWS]])
      expect((await fetch(get.url, { method: 'PUT', headers: get.headers, body: 'other' })).status).toBeGreaterThanOrEqual(400)
    }
    expect((await patchVersion(org)).body.training).toMatchObject({ spec: { data: `${org}/notes@1.0` }, datasetDigest: digest })
    await fail({ job, token })
    expect((await finetune(org)).status).toBe(202)
    expect((await patchVersion(org)).body.training).toMatchObject({ spec: { data: null }, datasetDigest: null })
    await fail(await claim('finetune'))

    expect((await evolve(org, { config: 'datasets: [{path: notes, type: completion}]', data: `${org}/notes@1.0` })).status).toBe(202)
    const evolution = await claim('evolve')
    expect(evolution.spec.data).toMatchObject({ dataset: `${org}/notes@1.0`, digest })
    await fail(evolution)
  })

  it('are for who may see them, once they are published', async () => {
    const [org, other] = [await withBase(), await newOrganization(registry)]
    await publishNotes(other, { visibility: 'internal' })
    const publisher = await newUser(registry, { organization: org, role: 'publisher', scopes: ['read', 'publish'] })
    const asks = (data: string) => [finetune(org, { data }, publisher), evolve(org, { data }, publisher)]
    for (const data of [`${other}/notes@1.0`, `${other}/notes@2.0`, `${other}/none@1.0`, 'nobody/notes@1.0']) {
      for (const answer of await Promise.all(asks(data))) expect([data, ...codeOf(answer)]).toEqual([data, 404, 'not_found'])
    }
    await registry.ok('updateDataset', { params: { org: other, name: 'notes' }, body: { visibility: 'public' } })
    expect((await finetune(org, { data: `${other}/notes@1.0` }, publisher)).status).toBe(202)
    await fail(await claim('finetune'))
    await registry.ok('draftDatasetVersion', { params: { org, name: 'drafts', version: '1' }, body: { files: fileList(ROWS) } })
    expect(codeOf(await finetune(org, { data: `${org}/drafts@1` }, publisher))).toEqual([409, 'wrong_state'])
    expect(codeOf(await finetune(org, { data: `${other}/notes@1.0:2` }, publisher))).toEqual([400, 'invalid_reference'])
  })
})

describe('an evolution', () => {
  it('publishes a version whose parent is the one that it was trained from', async () => {
    const org = await withBase()
    const config = 'learning_rate: 1e-5\ndatasets:\n  - path: Open-Orca/SlimOrca\n    type: sharegpt\n'
    const asked = await evolve(org, { config, parentKind: 'instruction-tuning' })
    expect([asked.status, asked.body]).toEqual([202, expect.objectContaining({ reference: `${org}/base@v2`, job: expect.objectContaining({ kind: 'evolve', subject: { kind: 'model-version', reference: `${org}/base@v2` } }) })])
    expect((await evolve(org, { config, parentKind: 'instruction-tuning' })).body.job.id).toBe(asked.body.job.id)
    const claimed = await claim('evolve')
    expect(claimed.spec).toMatchObject({ kind: 'evolve', config, data: null })
    expect(claimed.spec.parent).toHaveLength(3)
    // What the organization has already is not sent again.
    const plan = await announce(claimed, EVOLVED)
    expect(plan.body.files.map(({ path, parts }: any) => [path, parts.length])).toEqual([['config.json', 0], ['tokenizer.json', 0], ['model.safetensors', 1], ['training.json', 1]])
    await putFiles(plan.body, EVOLVED)
    expect((await complete(claimed, EVOLVED, { ...record, task: null })).status).toBe(204)
    await runIngest(registry)
    const version = await registry.ok('getModelVersion', { params: { org, name: 'base', version: 'v2' } })
    expect(version).toMatchObject({ state: 'published', parent: { reference: `${org}/base@v1`, kind: 'instruction-tuning' }, training: { spec: { parent: `${org}/base@v1`, config }, record: { steps: 3 } } })
    expect(codeOf(await evolve(org, { config }))).toEqual([409, 'version_exists'])
    expect(codeOf(await finetune(org, { base: `${org}/base@v2` }))).toEqual([202, undefined])
    await fail(await claim('finetune'))
  })

  it('that fails leaves its version rejected, and is refused for a config that a stranger must not send', async () => {
    const org = await withBase()
    await evolve(org)
    const claimed = await claim('evolve')
    expect(codeOf(await registry.call('completeJob', { params: { id: claimed.job.id }, token: claimed.token, body: { result: { rejection: [{ code: 'x', message: 'x' }] } } }))).toEqual([400, 'invalid_request'])
    await fail(claimed, { code: 'bad_config', message: 'The key lerning_rate is not known.' })
    expect((await registry.ok('getModelVersion', { params: { org, name: 'base', version: 'v2' } }))).toMatchObject({ state: 'rejected', rejection: [{ code: 'bad_config' }] })
    for (const [body, status, code] of [
      [{ config: 'datasets: [{path: json}]' }, 400, 'invalid_request'], [{ config: '- a' }, 400, 'invalid_request'], [{ parent: `${org}/base@v9` }, 404, 'not_found'], [{ parent: `${org}/base@v2` }, 409, 'wrong_state'],
      [{ model: `${org}/base` }, 400, 'invalid_reference'], [{ model: `${org}/base@merged..x` }, 400, 'invalid_name'], [{ parentKind: 'fine-tuning' }, 400, 'invalid_request'], [{ data: 'nobody/notes' }, 404, 'not_found'],
    ] as const) expect([body, ...codeOf(await evolve(org, body))]).toEqual([body, status, code])
    const reader = await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish'] })
    expect([codeOf(await evolve(org, {}, reader)), codeOf(await evolve(org, {}, null))]).toEqual([[403, 'forbidden'], [401, 'unauthenticated']])
  })
})
