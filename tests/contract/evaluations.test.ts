import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eq } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { audit, blobs } from '../../db/schema.ts'
import { collectGarbage } from '../../api/services/garbage/collect.ts'
import { sampleModel } from '../../patch/sample-manifests.ts'
import { ROOT } from '../setup/registry.ts'
import { DEPLOYMENT, fileList, newOrganization, newToken, newUser, publish, putFiles, runIngest, sha256, startTestRegistry, STORE, upload, type Answer, type Files, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let runner: string
beforeAll(async () => {
  registry = await startTestRegistry()
  runner = await newToken(registry, ['runner'])
})
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body?.error?.code]
const weights = (of: string) => ({ 'config.json': `{"of":"${of}"}`, 'folder/model.safetensors': Buffer.alloc(100, of) })

interface Names { org: string; patch: string; target: string }

/** An organization with the models `base@v1` and `evolved@v2`, and a patch of the first that fits the second. */
async function withPatch(visibility: Partial<Record<'target' | 'patch', 'internal'>> = {}): Promise<Names> {
  const org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: weights(`base of ${org}`) })
  await publish(registry, { kind: 'model', org, name: 'evolved', version: 'v2', parent: { reference: `${org}/base@v1`, kind: 'continued-pretraining' }, files: weights(`evolved of ${org}`), ...(visibility.target && { visibility: visibility.target }) })
  await publish(registry, { kind: 'patch', org, name: 'speech', version: '1.0.0', base: `${org}/base@v1`, files: { 'adapter_model.safetensors': Buffer.alloc(50, org) }, ...(visibility.patch && { visibility: visibility.patch }) })
  return { org, patch: `${org}/speech`, target: `${org}/evolved@v2` }
}

function request(body: Record<string, unknown>, token?: string | null, headers: Record<string, string> = {}): Promise<Answer> {
  return registry.call('requestEvaluation', { body: { tasks: ['boolq'], ...body }, headers, ...(token !== undefined && { token }) })
}

function tryClaim(kind = 'evaluate', waitSeconds = 0): Promise<Answer> {
  return registry.call('claimJob', { token: runner, body: { kinds: [kind], waitSeconds, runner: { name: 'test' } } })
}

async function claim(): Promise<any> {
  const { status, body } = await tryClaim('evaluate', 5)
  if (status !== 200) throw new Error(`no evaluation is waiting (${status})`)
  return body
}

const score = (changes: Record<string, unknown> = {}) => ({ task: 'boolq', version: '2.0', metric: 'acc', filter: 'none', value: 0.75, stderr: 0.02, samples: 400, higher_is_better: true, ...changes })
const SAMPLES = { 'samples_boolq.jsonl': '{"doc_id":0,"acc":1}\n{"doc_id":1,"acc":0}\n' }

function complete({ job, token }: any, { scores = [score()], files = {} }: { scores?: readonly unknown[]; files?: Files | readonly unknown[] } = {}): Promise<Answer> {
  const named = Array.isArray(files) ? files : fileList(files as Files)
  return registry.call('completeJob', { params: { id: job.id }, token, body: { result: { scores, files: named, versions: { lm_eval: '0.4.9' }, device: 'cpu', seconds: 3 } } })
}

async function putOutputs({ job, token }: any, files: Files): Promise<Answer> {
  const plan = await registry.call('requestOutputs', { params: { id: job.id }, token, body: { files: fileList(files) } })
  if (plan.status === 200) expect(await putFiles(plan.body, files)).toEqual(Object.keys(files).map(() => 200))
  return plan
}

async function evaluated(body: Record<string, unknown>, scores?: readonly unknown[]): Promise<string> {
  const { evaluation } = (await request(body)).body
  expect((await complete(await claim(), scores === undefined ? {} : { scores })).status).toBe(204)
  return evaluation
}

async function fetchFile({ extents }: any): Promise<Buffer> {
  const parts = await Promise.all(extents.map(async ({ get, length }: any) => {
    const bytes = Buffer.from(await (await fetch(get.url, { headers: get.headers })).arrayBuffer())
    expect(bytes.length).toBe(length)
    return bytes
  }))
  return Buffer.concat(parts as Buffer[])
}

describe('an evaluation', () => {
  it('of a model is made once: a job, then scores, and what was recorded of each question', async () => {
    const { org, target } = await withPatch()
    const asked = await request({ target, tasks: ['sst2', 'boolq', 'sst2'], limit: 400 })
    expect([asked.status, asked.headers.get('location'), asked.headers.get('retry-after')]).toEqual([202, `/v1/jobs/${asked.body.job.id}`, '1'])
    expect(asked.body.job).toMatchObject({ kind: 'evaluate', state: 'queued', subject: { kind: 'evaluation', reference: target } })
    const again = await Promise.all([request({ target, tasks: ['boolq', 'sst2'], limit: 400 }), request({ target, how: 'plain', tasks: ['boolq', 'sst2'], limit: 400, seed: 1234 })])
    expect(again.map(({ body }) => body.job.id)).toEqual([asked.body.job.id, asked.body.job.id])
    const other = await request({ target, tasks: ['boolq', 'sst2'], limit: 401 })
    expect(other.body.evaluation).not.toBe(asked.body.evaluation)
    const params = { id: asked.body.evaluation }
    expect(await registry.ok('getEvaluation', { params, token: null })).toMatchObject({ state: 'queued', result: null, files: [], job: { id: asked.body.job.id } })
    expect(codeOf(await registry.call('getEvaluationFile', { params: { ...params, path: 'x' } }))).toEqual([409, 'wrong_state'])

    const claimed = await claim()
    expect(claimed.spec).toMatchObject({ kind: 'evaluate', evaluation: params.id, adapter: null, tasks: ['boolq', 'sst2'], taskFile: null, data: null, num_fewshot: null, batch_size: 8, limit: 400, seed: 1234 })
    const expected = weights(`evolved of ${org}`)
    expect(claimed.spec.model.map(({ path, size, sha256: digest }: any) => ({ path, size, sha256: digest }))).toEqual(fileList(expected))
    for (const file of claimed.spec.model) expect(sha256(await fetchFile(file))).toBe(file.sha256)

    expect((await putOutputs(claimed, SAMPLES)).status).toBe(200)
    expect((await complete(claimed, { scores: [score(), score({ task: 'sst2', version: '1', metric: 'perplexity', stderr: null, higher_is_better: false })], files: SAMPLES })).status).toBe(204)
    const version = await registry.ok('getModelVersion', { params: { org, name: 'evolved', version: 'v2' } })
    const ready = await registry.ok('getEvaluation', { params, token: null })
    expect(ready).toMatchObject({
      state: 'ready', job: { state: 'succeeded' }, target: { reference: target, digest: version.digest }, patch: null, spec: { how: 'plain', tasks: ['boolq', 'sst2'], limit: 400 },
      files: [{ path: 'samples_boolq.jsonl', etag: sha256(SAMPLES['samples_boolq.jsonl']) }],
      result: { format: 'portllm.evaluation/1', target: version.digest, patch: null, derivation: null, measured: { by: registry.url, versions: { lm_eval: '0.4.9' }, device: 'cpu', seconds: 3 }, scores: [score(), { task: 'sst2', stderr: null }] },
    })
    const known = await request({ target, tasks: ['sst2', 'boolq'], limit: 400 })
    expect([known.status, known.body.id]).toEqual([200, params.id])
    const actions = await registry.server.dependencies.db.select({ action: audit.action }).from(audit).where(eq(audit.subject, params.id))
    expect(actions.map(({ action }) => action).sort()).toEqual(['evaluation.measure', 'evaluation.request'])

    await collectGarbage({ ctx: registry.server.dependencies, input: { graceSeconds: 0 } })
    const [path, text] = Object.entries(SAMPLES)[0]!
    const file = await fetch(`${registry.url}/v1/evaluations/${params.id}/files/${path}`, { headers: { Range: 'bytes=0-19' } })
    expect([file.status, await file.text(), file.headers.get('cache-control')]).toEqual([206, text.slice(0, 20), 'public, max-age=31536000, immutable, no-transform'])
    expect(codeOf(await registry.call('getEvaluationFile', { params: { ...params, path: 'none' } }))).toEqual([404, 'not_found'])
    await complete(await claim())
  })

  it('with PEFT gets the adapter beside the target', async () => {
    const { org, patch, target } = await withPatch()
    const asked = await request({ target, patch: `${patch}@^1`, how: 'peft', num_fewshot: 2, batch_size: 4, seed: 7 })
    expect(asked.body.job.subject.reference).toBe(`${org}/speech@1.0.0 on ${target}`)
    const claimed = await claim()
    expect(claimed.spec).toMatchObject({ num_fewshot: 2, batch_size: 4, seed: 7, adapter: [{ path: 'adapter_model.safetensors', size: 50 }] })
    expect(sha256(await fetchFile(claimed.spec.adapter[0]))).toBe(claimed.spec.adapter[0].sha256)
    expect(sha256(await fetchFile(claimed.spec.model[1]))).toBe(fileList(weights(`evolved of ${org}`))[1]!.sha256)
    expect((await complete(claimed)).status).toBe(204)
    const ready = await registry.ok('getEvaluation', { params: { id: asked.body.evaluation } })
    expect(ready.patch.base.reference).toBe(`${org}/base@v1`)
    expect([ready.patch.reference, ready.spec.how, ready.result.patch, ready.files]).toEqual([`${org}/speech@1.0.0`, 'peft', ready.patch.digest, []])
  })

  it('with a task of one\'s own, and data of one\'s organization, names both to the runner', async () => {
    const { org, target } = await withPatch()
    const taskFile = 'task: triage\noutput_type: multiple_choice\ndoc_to_text: "{{text}}"\n'
    const asked = await request({ target, tasks: [], taskFile, data: `${org}/notes` })
    expect(asked.status).toBe(202)
    const claimed = await claim()
    expect(claimed.spec).toMatchObject({ tasks: ['triage'], taskFile, data: `${org}/notes` })
    await complete(claimed, { scores: [score({ task: 'triage' })] })
    // The data is the organization's own, and with it the figures, though the model is public.
    const params = { id: asked.body.evaluation }
    expect(codeOf(await registry.call('getEvaluation', { params, token: null }))).toEqual([404, 'not_found'])
    const member = await newUser(registry, { organization: org, role: 'reader', scopes: ['read'] })
    expect((await registry.call('getEvaluation', { params, token: member })).status).toBe(200)
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    const [theirs, absent] = [await request({ target, tasks: [], taskFile, data: `${org}/notes` }, stranger), await request({ target, data: 'nobody/notes' }, stranger)]
    expect([codeOf(theirs), codeOf(absent)]).toEqual([[404, 'not_found'], [404, 'not_found']])
    expect(theirs.body.error.message.replace(org, 'nobody')).toBe(absent.body.error.message)
  })

  it('is waited for with Prefer: wait, and a failed one is told and may be asked for again', async () => {
    const { target } = await withPatch()
    const waiting = request({ target }, undefined, { Prefer: 'wait=20' })
    const claimed = await claim()
    await registry.ok('reportProgress', { params: { id: claimed.job.id }, token: claimed.token, body: { progress: { phase: 'installing Python packages', done: 3, total: 40, unit: 'packages' } } })
    await registry.ok('failJob', { params: { id: claimed.job.id }, token: claimed.token, body: { code: 'no_data', message: 'The task boolq has no data here.', retryable: false } })
    const failed = await waiting
    expect([...codeOf(failed), failed.body.error.message]).toEqual([502, 'evaluation_failed', 'The evaluation failed: The task boolq has no data here. Ask again to start another job.'])
    const again = await request({ target })
    expect([again.status, again.body.job.id === claimed.job.id]).toEqual([202, false])
    await complete(await claim())
    expect((await request({ target }, undefined, { Prefer: 'wait=20' })).body.state).toBe('ready')
  })

  it('takes only what this attempt has staged, and from the attempt that holds the job', async () => {
    const { target } = await withPatch()
    const { evaluation } = (await request({ target })).body
    const claimed = await claim()
    expect(codeOf(await complete(claimed, { files: SAMPLES }))).toEqual([409, 'upload_incomplete'])
    expect((await putOutputs(claimed, SAMPLES)).status).toBe(200)
    const [named] = fileList(SAMPLES)
    for (const wrong of [[{ ...named!, path: '../x' }], [named!, named!]]) expect(codeOf(await complete(claimed, { files: wrong }))).toEqual([400, 'invalid_reference'])
    for (const scores of [[], [score({ value: 'much' })], [score({ stderr: -1 })], [{ ...score(), more: 1 }]]) expect(codeOf(await complete(claimed, { scores }))).toEqual([400, 'invalid_request'])
    const merge = { engine: { name: 'core', version: '1', path: 'scalar' }, tensors: [], seconds: 1 }
    expect(codeOf(await registry.call('completeJob', { params: { id: claimed.job.id }, token: claimed.token, body: { result: merge } }))).toEqual([400, 'invalid_request'])

    // The store itself refuses other bytes than were announced.
    const plan = await registry.ok('requestOutputs', { params: { id: claimed.job.id }, token: claimed.token, body: { files: fileList({ 'a.jsonl': 'right' }) } })
    const [part] = plan.files[0].parts
    expect((await fetch(part.url, { method: 'PUT', headers: part.headers, body: 'wrong' })).status).toBe(STORE === 'directory' ? 422 : 400)

    await registry.ok('failJob', { params: { id: claimed.job.id }, token: claimed.token, body: { code: 'runner_stopped', message: 'The runner was stopped.', retryable: true } })
    const second = await claim()
    expect(second.job).toEqual({ ...claimed.job, attempt: 2 })
    expect(codeOf(await putOutputs(claimed, SAMPLES))).toEqual([409, 'stale_attempt'])
    expect(codeOf(await complete(claimed))).toEqual([409, 'stale_attempt'])
    // What the first attempt staged is not the second's.
    expect(codeOf(await complete(second, { files: SAMPLES }))).toEqual([409, 'upload_incomplete'])
    await putOutputs(second, SAMPLES)
    expect((await complete(second, { files: SAMPLES })).status).toBe(204)
    expect((await registry.ok('getEvaluation', { params: { id: evaluation } })).files).toHaveLength(1)
    expect(codeOf(await putOutputs(second, SAMPLES))).toEqual([409, 'stale_attempt'])
    expect(await registry.server.dependencies.db.select().from(blobs).where(eq(blobs.sha256, named!.sha256))).toHaveLength(1)
  })

  it('of what does not fit, is not there, or is not said clearly is refused, with the reason', async () => {
    const { org, patch, target } = await withPatch()
    const wide = sampleModel({ hidden: 16 })
    await upload(registry, { kind: 'model', org, name: 'wide', version: 'v1', files: weights(`wide of ${org}`) })
    await runIngest(registry, { tensors: wide.tensors })
    expect(codeOf(await request({ target: `${org}/wide@v1`, patch }))).toEqual([422, 'incompatible'])
    expect(codeOf(await request({ target: `${org}/evolved@v9` }))).toEqual([404, 'not_found'])
    expect(codeOf(await request({ target: `${org}/evolved` }))).toEqual([400, 'invalid_reference'])
    expect(codeOf(await request({ target, patch: `${org}/nothing` }))).toEqual([404, 'not_found'])
    expect(codeOf(await request({ target, patch: `${patch}:0` }))).toEqual([400, 'invalid_reference'])
    for (const [body, message] of [
      [{ target, how: 'peft' }, /name the patch/], [{ target, patch, how: 'plain' }, /merged or peft/], [{ target, patch: `${patch}:0.5`, how: 'peft' }, /evaluated merged/],
      [{ target, patches: [patch, `${org}/other`], how: 'peft' }, /evaluated merged/], [{ target, patch, patches: [patch] }, /either one patch/], [{ target, patches: [patch, patch] }, /named twice/], [{ target, tasks: [] }, /at least one task/],
      [{ target, tasks: ['../../etc/task'] }, /no name of a task/], [{ target, taskFile: 'task: a\nprocess_docs: !function x.y' }, /tag !function/], [{ target, batch_size: 0 }, /batch_size/],
    ] as const) {
      const answer = await request(body)
      expect([...codeOf(answer), answer.body.error.message]).toEqual([400, 'invalid_request', expect.stringMatching(message)])
    }
    expect((await tryClaim()).status).toBe(204)
  })
})

describe('the list', () => {
  it('is of a model, a patch, a task, newest first, page by page, and of what the caller may see', async () => {
    const { org, patch, target } = await withPatch()
    const base = `${org}/base@v1`
    const ids: Record<string, string> = {}
    ids.base = await evaluated({ target: base })
    ids.group = await evaluated({ target, tasks: ['mmlu'] }, [score({ task: 'mmlu_law' })])
    ids.peft = await evaluated({ target, patch, how: 'peft' })
    ids.secret = await evaluated({ target: base, data: `${org}/notes` })
    const list = async (query: Record<string, string | number>, token?: string | null) => {
      const { items, nextCursor } = await registry.ok('listEvaluations', { query, ...(token !== undefined && { token }) })
      return [items.map(({ id }: any) => Object.entries(ids).find(([, known]) => known === id)?.[0]), nextCursor] as const
    }
    expect(await list({ model: `${org}/evolved` })).toEqual([['peft', 'group'], null])
    expect(await list({ model: base })).toEqual([['secret', 'base'], null])
    expect(await list({ model: base }, null)).toEqual([['base'], null])
    expect(await list({ patch: `${org}/speech@1.0.0` })).toEqual([['peft'], null])
    expect(await list({ patch, how: 'merged' })).toEqual([[], null])
    expect(await list({ model: target, how: 'plain' })).toEqual([['group'], null])
    expect([await list({ model: target, task: 'mmlu' }), await list({ model: target, task: 'mmlu_law' }), await list({ model: target, task: 'boolq' })]).toEqual([[['group'], null], [['group'], null], [['peft'], null]])
    const [first, cursor] = await list({ model: target, limit: 1 })
    expect(first).toEqual(['peft'])
    expect(await list({ model: target, limit: 1, cursor: cursor! })).toEqual([['group'], null])
    expect(codeOf(await registry.call('listEvaluations', { query: { model: 'nobody/none' } }))).toEqual([404, 'not_found'])
    expect(codeOf(await registry.call('listEvaluations', { query: { patch: `${patch}:2` } }))).toEqual([400, 'invalid_reference'])
    expect(codeOf(await registry.call('listEvaluations', { query: { cursor: 'x' } }))).toEqual([400, 'invalid_request'])
  })
})

describe('resolving a patch on a target', () => {
  it('tells how it did there, and the target alone on the same question, to whoever may see all of it', async () => {
    const { org, patch, target } = await withPatch()
    const evidenceFor = async (token: string | null) => (await registry.ok('resolvePatches', { query: { patch, target }, token })).patches[0].evidence
    expect(await evidenceFor(null)).toEqual([])
    const id = await evaluated({ target, patch, how: 'peft', limit: 400 })
    const lone = (alone: unknown) => [expect.objectContaining({ kind: 'evaluation', id, how: 'peft', limit: 400, num_fewshot: null, measured: { by: registry.url, at: expect.any(String) }, scores: [{ ...score(), alone }] })]
    expect(await evidenceFor(null)).toEqual(lone(null))
    // Other questions, another version of the task, another target: nothing to compare with.
    await evaluated({ target })
    await evaluated({ target: `${org}/base@v1`, limit: 400 })
    await evaluated({ target, limit: 400, seed: 2 }, [score({ version: '1.0', value: 0.1 })])
    expect(await evidenceFor(null)).toEqual(lone(null))
    await evaluated({ target, limit: 400 }, [score({ value: 0.5, stderr: 0.025 })])
    expect(await evidenceFor(null)).toEqual(lone({ value: 0.5, stderr: 0.025 }))

    await evaluated({ target, patch, how: 'peft', data: `${org}/notes` })
    const member = await newUser(registry, { organization: org, role: 'reader', scopes: ['read'] })
    expect([(await evidenceFor(member)).length, (await evidenceFor(null)).length]).toEqual([2, 1])
  })
})

describe('the pages of patch and target', () => {
  it('show ported, base and target side by side, to whoever may see what was evaluated', async () => {
    const { org, patch, target } = await withPatch()
    const pages = [`/patches/${patch}`, `/models/${target.replace('@', '/')}`]
    const show = async (path: string, token?: string) => (await fetch(registry.url + path, token === undefined ? {} : { headers: { Authorization: `Bearer ${token}` } })).text()
    await evaluated({ target, patch, how: 'peft', data: `${org}/notes` }, [score({ value: 0.123 })])
    for (const path of pages) {
      expect(await show(path)).not.toContain('<svg')
      expect(await show(path, registry.adminToken)).toMatch(/<svg.*evolved \+ patch 0\.123/s)
    }
    await evaluated({ target: `${org}/base@v1` }, [score({ value: 0.25 })])
    await evaluated({ target }, [score({ value: 0.3125 })])
    await evaluated({ target, patch, how: 'peft' })
    for (const path of pages) expect(await show(path)).toMatch(/<svg.*base 0\.250 ± 0\.020, evolved 0\.313 ± 0\.020, evolved \+ patch 0\.750 ± 0\.020/s)
    expect(await show(`/models/${org}/base/v1`)).not.toContain('<svg')
    expect(await show(`/patches/${patch}/1.0.0`)).toContain(`${org}/base@v1`)
  })
})

describe('who may', () => {
  it('ask for one: whoever may see target and patch, with a token that reads', async () => {
    const { target } = await withPatch()
    expect(codeOf(await request({ target }, null))).toEqual([401, 'unauthenticated'])
    expect(codeOf(await request({ target }, runner))).toEqual([403, 'forbidden'])
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'reader', scopes: ['read'] })
    const asked = await request({ target }, stranger)
    expect(asked.status).toBe(202)
    expect((await registry.ok('getJob', { params: { id: asked.body.job.id }, token: null })).kind).toBe('evaluate')
    await complete(await claim())
  })

  it.each(['target', 'patch'] as const)('see one whose %s is internal: members only, and to others it does not exist', async (secret) => {
    const { org, patch, target } = await withPatch({ [secret]: 'internal' })
    const body = { target, patch, how: 'peft' }
    const member = await newUser(registry, { organization: org, role: 'reader', scopes: ['read'] })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    expect(codeOf(await request(body, stranger))).toEqual([404, 'not_found'])
    expect((await tryClaim()).status).toBe(204)
    const { evaluation: id } = (await request(body)).body
    const claimed = await claim()
    await putOutputs(claimed, SAMPLES)
    expect((await complete(claimed, { files: SAMPLES })).status).toBe(204)
    const { job } = await registry.ok('getEvaluation', { params: { id }, token: member })
    const path = 'samples_boolq.jsonl'
    const file = await registry.call('headEvaluationFile', { params: { id, path }, token: member })
    expect([file.status, file.headers.get('cache-control')]).toEqual([200, 'private, max-age=31536000, immutable, no-transform'])
    for (const token of [stranger, null]) {
      const [seen, absent] = [await registry.call('getEvaluation', { params: { id }, token }), await registry.call('getEvaluation', { params: { id: crypto.randomUUID() }, token })]
      expect(codeOf(seen)).toEqual([404, 'not_found'])
      expect(seen.body.error.message.replace(/[0-9a-f-]{36}/, '')).toBe(absent.body.error.message.replace(/[0-9a-f-]{36}/, ''))
      expect(codeOf(await registry.call('getEvaluationFile', { params: { id, path }, token }))).toEqual([404, 'not_found'])
      expect(codeOf(await registry.call('getJob', { params: { id: job.id }, token }))).toEqual([404, 'not_found'])
      expect((await registry.ok('listEvaluations', { query: {}, token })).items.map((item: any) => item.id)).not.toContain(id)
    }
  })
})

describe('of a merged model', () => {
  let org: string
  const target = () => `${org}/tiny@2.0`
  beforeAll(async () => {
    org = await newOrganization(registry)
    await uploadFixture('model', 'llama/base', 'tiny', '1.0')
    await uploadFixture('model', 'llama/evolved', 'tiny', '2.0', { parent: { reference: `${org}/tiny@1.0`, kind: 'continued-pretraining' } })
    await uploadFixture('patch', 'llama/patch-kind', 'kind', '1.0.0', { base: `${org}/tiny@1.0` })
    await uploadFixture('patch', 'llama/patch-speech', 'speech', '1.0.0', { base: `${org}/tiny@1.0` })
  })

  async function uploadFixture(kind: 'model' | 'patch', fixture: string, name: string, version: string, more: Record<string, unknown> = {}): Promise<void> {
    const folder = join(ROOT, 'tests/fixtures', fixture)
    const files = Object.fromEntries(await Promise.all((await readdir(folder)).map(async (path) => [path, await readFile(join(folder, path))] as const)))
    await upload(registry, { kind, org, name, version, files, ...more })
    await runOne('ingest')
  }

  /** The real runner, for one job. */
  function runOne(kind: string): Promise<void> {
    const child = spawn(process.execPath, [`${ROOT}gpu-runner/runner.ts`, '--kinds', kind, '--once'], { stdio: 'ignore', env: { ...process.env, PORTLLM_REGISTRY: registry.url, PORTLLM_RUNNER_TOKEN: runner } })
    return new Promise((resolve, reject) => child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`the runner ended with ${code}`)))))
  }

  it('it waits for the merge, and reads the bytes that the registry computes, with the token of its attempt alone', async () => {
    const asked = await request({ target: target(), patch: `${org}/kind` })
    expect([asked.status, asked.body.job.state]).toEqual([202, 'queued'])
    expect((await request({ target: target(), patch: `${org}/kind@1.0.0`, how: 'merged' })).body.job.id).toBe(asked.body.job.id)
    expect((await tryClaim()).status).toBe(204)
    await runOne('merge')
    const claimed = await claim()
    expect([claimed.job.id, claimed.spec.adapter]).toEqual([asked.body.job.id, null])

    const { derivation } = (await registry.ok('resolvePatches', { query: { target: target(), patch: `${org}/kind` } }))
    const merged = await registry.ok('getDerivation', { params: { id: derivation } })
    // No merge core runs in a Worker: there the bytes are the store's, and the job is sent to it.
    const isComputed = DEPLOYMENT !== 'edge'
    expect(merged).toMatchObject({ state: 'ready', storage: isComputed ? 'computed' : 'materialised' })
    const computed = claimed.spec.model.flatMap(({ extents }: any) => extents).filter(({ get }: any) => get.headers.Authorization !== undefined)
    expect(computed.length > 0).toBe(isComputed)
    for (const file of claimed.spec.model) {
      const whole = await fetch(`${registry.url}/v1/derivations/${derivation}/files/${file.path}`)
      expect(sha256(await fetchFile(file)), file.path).toBe(sha256(Buffer.from(await whole.arrayBuffer())))
      const { changed, etag } = merged.files.find(({ path }: any) => path === file.path)
      expect(file.sha256).toBe(changed ? null : etag)
    }
    const { url, headers: { Range: range } } = isComputed ? computed[0].get : { url: `${registry.url}/v1/runner/jobs/${claimed.job.id}/files/${claimed.spec.model[0].path}`, headers: { Range: 'bytes=0-9' } }
    const ask = async (authorization: string, path = url) => (await fetch(path, { headers: { Range: range, Authorization: authorization } })).status
    expect([await ask(`Bearer ${claimed.token}`), await ask(`Bearer ${registry.adminToken}`), await ask('Bearer x'), await ask(`Bearer ${claimed.token}`, url.replace(claimed.job.id, crypto.randomUUID()))]).toEqual([206, 401, 401, 403])
    // It is no token of the API, nor of any other file.
    expect(await ask(`Bearer ${claimed.token}`, `${registry.url}/v1/derivations/${derivation}/files/config.json`)).toBe(401)
    expect(await ask(`Bearer ${claimed.token}`, url.replace(/files\/.*/, 'files/..%2f..%2fx'))).toBe(404)

    expect((await complete(claimed)).status).toBe(204)
    expect(await ask(`Bearer ${claimed.token}`)).toBe(409)
    expect((await registry.ok('getEvaluation', { params: { id: asked.body.evaluation } })).result.derivation).toBe(derivation)
    // It is merged now: nothing to wait for.
    const next = await request({ target: target(), patch: `${org}/kind`, tasks: ['sst2'] })
    await complete(await claim())
    expect((await registry.ok('getEvaluation', { params: { id: next.body.evaluation } })).state).toBe('ready')
  })

  it('it fails with the merge that it waited for, and asking again starts both', async () => {
    const body = { target: target(), patch: `${org}/speech` }
    const asked = await request(body)
    const merge = (await tryClaim('merge', 5)).body
    await registry.ok('failJob', { params: { id: merge.job.id }, token: merge.token, body: { code: 'non_finite_result', message: 'The sum is infinite.', retryable: false } })
    expect(await registry.ok('getEvaluation', { params: { id: asked.body.evaluation } })).toMatchObject({ state: 'failed', job: { state: 'failed', failure: { code: 'merge_failed', message: 'The merge that it waited for has failed: The sum is infinite.' } } })
    expect((await tryClaim()).status).toBe(204)
    const again = await request(body)
    expect([again.status, again.body.evaluation, again.body.job.id === asked.body.job.id]).toEqual([202, asked.body.evaluation, false])
    await runOne('merge')
    expect((await complete(await claim())).status).toBe(204)
  })

  it('several patches with weights are one merged model: measured once, told in their order, and for who may see all of them', async () => {
    const patches = [`${org}/kind@^1:0.5`, `${org}/speech`]
    const asked = await request({ target: target(), patches })
    expect([asked.status, (await request({ target: target(), patches: [`${org}/kind@1.0.0:0.5`, `${org}/speech@1.0.0`], how: 'merged' })).body.job.id]).toEqual([202, asked.body.job.id])
    await runOne('merge')
    const claimed = await claim()
    expect([claimed.job.id, claimed.spec.adapter]).toEqual([asked.body.job.id, null])
    expect((await complete(claimed, { scores: [score({ value: 0.9 })] })).status).toBe(204)
    const params = { id: asked.body.evaluation }
    const ready = await registry.ok('getEvaluation', { params, token: null })
    const told = [{ reference: `${org}/kind@1.0.0`, weight: 0.5 }, { reference: `${org}/speech@1.0.0`, weight: 1 }]
    expect(ready).toMatchObject({ patch: null, patches: told, spec: { how: 'merged' }, result: { patch: null, scores: [{ value: 0.9 }] } })
    expect((await registry.ok('getDerivation', { params: { id: ready.result.derivation } })).patches).toMatchObject(told)

    // Another order, another weight, and the patch as it was published are other questions.
    const ids = new Set([params.id, (await request({ target: target(), patch: `${org}/kind` })).body.id])
    for (const body of [{ patches: patches.toReversed() }, { patch: `${org}/kind:0.5` }]) {
      ids.add((await request({ target: target(), ...body })).body.evaluation)
      const merge = (await tryClaim('merge', 5)).body
      await registry.ok('failJob', { params: { id: merge.job.id }, token: merge.token, body: { code: 'x', message: 'Not needed.', retryable: false } })
    }
    expect([ids.size, ids.has(undefined as never)]).toEqual([4, false])
    // It is no evaluation of the target alone, nor of one of its patches.
    const { evidence } = (await registry.ok('resolvePatches', { query: { patch: `${org}/kind`, target: target() } })).patches[0]
    expect(evidence.flatMap(({ scores }: any) => scores).map(({ value, alone }: any) => [value, alone])).toEqual([[0.75, null], [0.75, null]])
    const others: Record<string, string>[] = [{ model: target(), how: 'plain' }, { patch: `${org}/kind` }, { patch: `${org}/speech` }]
    for (const query of others) {
      expect((await registry.ok('listEvaluations', { query })).items.map(({ id }: any) => id)).not.toContain(params.id)
    }
    expect((await registry.ok('listEvaluations', { query: { model: target() }, token: null })).items.find(({ id }: any) => id === params.id).patches).toMatchObject(told)

    await registry.ok('updatePatch', { params: { org, name: 'speech' }, body: { visibility: 'internal' } })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    for (const token of [stranger, null]) {
      expect(codeOf(await registry.call('getEvaluation', { params, token }))).toEqual([404, 'not_found'])
      expect((await registry.ok('listEvaluations', { query: { model: target() }, token })).items.map(({ id }: any) => id)).not.toContain(params.id)
    }
    expect((await registry.ok('getEvaluation', { params })).patches).toMatchObject(told)
  })
})
