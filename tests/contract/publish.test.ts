import { EventSourceParserStream } from 'eventsource-parser/stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Job } from '../../api/routes/jobs/job-schema.ts'
import { claimIngest, fileList, newOrganization, newToken, newUser, publish, putFiles, runIngest, sha256, startTestRegistry, STORE, upload, type Files, type TestRegistry } from './harness.ts'
import { storedObjects } from './stored-objects.ts'

let registry: TestRegistry
beforeAll(async () => { registry = await startTestRegistry() })
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body.error?.code]
const FILES: Files = { 'config.json': '{"model_type":"llama"}', 'model.safetensors': new Uint8Array(1000).fill(7), 'empty.txt': '' }

async function put(url: string, headers: Record<string, string>, body: Uint8Array | string): Promise<{ status: number; body: any }> {
  const response = await fetch(url, { method: 'PUT', headers, body })
  const text = await response.text()
  return { status: response.status, body: text === '' ? null : text.startsWith('<') ? { error: { code: /<Code>(\w+)/.exec(text)?.[1] } } : JSON.parse(text) }
}

describe('publishing a model version', () => {
  it('goes from draft to published, and only then is seen', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    const draft = await registry.call('draftModelVersion', { params, body: { files: fileList(FILES), description: 'A base.' } })
    expect([draft.status, draft.body.state, draft.body.reference]).toEqual([201, 'draft', `${org}/base@v1`])
    expect(draft.body.files.map((file: any) => [file.path, file.held, file.parts.length])).toEqual([['config.json', false, 1], ['empty.txt', false, 1], ['model.safetensors', false, 1]])

    const early = await registry.call('completeModelUpload', { params })
    expect(codeOf(early)).toEqual([409, 'upload_incomplete'])
    expect(early.body.error.details.missing).toHaveLength(3)
    expect(await putFiles(draft.body, FILES)).toEqual([200, 200, 200])
    expect(codeOf(await registry.call('getModelVersion', { params, token: null }))).toEqual([404, 'not_found'])

    const completed = await registry.call('completeModelUpload', { params, body: { digest: draft.body.digest } })
    expect([completed.status, completed.body.state, completed.body.job.kind]).toEqual([202, 'verifying', 'ingest'])
    expect(completed.headers.get('location')).toBe(`/v1/jobs/${completed.body.job.id}`)
    const again = await registry.ok('completeModelUpload', { params })
    expect(again.job.id).toBe(completed.body.job.id)
    expect(codeOf(await registry.call('getModel', { params, token: null }))).toEqual([404, 'not_found'])

    expect((await runIngest(registry)).status).toBe(204)
    const published = await registry.ok('getModelVersion', { params, token: null })
    expect(published).toMatchObject({ state: 'published', digest: draft.body.digest, tensorCount: 9, parent: null, files: [{ path: 'config.json', size: 22, etag: sha256(FILES['config.json']!) }, { path: 'empty.txt', size: 0 }, { path: 'model.safetensors', size: 1000 }] })
    expect((await registry.ok('getModel', { params, token: null })).versions).toHaveLength(1)
    expect((await registry.ok('listModels', { token: null, query: { organization: org } })).items).toMatchObject([{ name: 'base', latestVersion: 'v1', description: 'A base.' }])
    expect((await registry.ok('getModelManifest', { params, token: null })).files).toHaveLength(3)
    const objects = storedObjects(registry)
    for (const { etag } of published.files) expect(await objects.has(`blobs/sha256/${etag.slice(0, 2)}/${etag}`)).toBe(true)
    expect(await objects.keys('uploads')).toEqual([])
  })

  it('never changes what is published', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    await publish(registry, { kind: 'model', ...params, files: FILES })
    const same = await registry.call('draftModelVersion', { params, body: { files: fileList(FILES) } })
    expect([...codeOf(same), same.body.error.details.same]).toEqual([409, 'version_exists', true])
    const other = await registry.call('draftModelVersion', { params: { ...params, version: 'V1' }, body: { files: fileList({ 'config.json': 'other' }) } })
    expect([...codeOf(other), other.body.error.details.same]).toEqual([409, 'version_exists', false])
    expect((await registry.ok('completeModelUpload', { params })).state).toBe('published')
  })

  it('resumes: what has arrived is not asked for again', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    const draft = await registry.ok('draftModelVersion', { params, body: { files: fileList(FILES) } })
    const config = draft.files.find((file: any) => file.path === 'config.json')
    await putFiles({ files: [config] }, FILES)
    const resumed = await registry.call('draftModelVersion', { params, body: { files: fileList(FILES).reverse() } })
    expect(resumed.status).toBe(200)
    expect(resumed.body.files.map((file: any) => [file.path, file.parts[0].stored])).toEqual([['config.json', true], ['empty.txt', false], ['model.safetensors', false]])
    expect((await registry.ok('getModelUpload', { params })).files).toHaveLength(3)
    expect(await putFiles(resumed.body, FILES)).toHaveLength(2)
    expect((await registry.call('completeModelUpload', { params })).status).toBe(202)
    await runIngest(registry)
  })

  it('takes a large file in parts, in any order, and joins them', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'large', version: 'v1' }
    const content = Buffer.alloc(64 * 1024 * 1024 + 12345)
    for (let i = 0; i < content.length; i += 4096) content.writeUInt32LE(i, i)
    const files = { 'model.safetensors': content }
    const draft = await registry.ok('draftModelVersion', { params, body: { files: fileList(files) } })
    const [first, second] = draft.files[0].parts
    expect([first, second].map((part: any) => [part.number, part.offset, part.length])).toEqual([[1, 0, 67108864], [2, 67108864, 12345]])
    expect((await put(second.url, second.headers, content.subarray(second.offset))).status).toBe(200)
    expect((await registry.call('completeModelUpload', { params })).body.error.details.missing).toEqual([{ path: 'model.safetensors', parts: [1] }])
    expect((await registry.ok('getModelUpload', { params })).files[0].parts.map((part: any) => part.stored)).toEqual([false, true])
    expect((await put(first.url, first.headers, content.subarray(0, first.length))).status).toBe(200)
    await registry.ok('completeModelUpload', { params })
    expect((await runIngest(registry)).status).toBe(204)
    expect((await registry.ok('getModelVersion', { params })).state).toBe('published')
  })

  it('stores nothing of wrong bytes', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    const draft = await registry.ok('draftModelVersion', { params, body: { files: fileList({ 'config.json': 'right' }) } })
    const [{ url, headers }] = draft.files[0].parts
    const [digest, size] = STORE === 'directory' ? [[422, 'digest_mismatch'], [400, 'invalid_request']] : [[400, expect.stringMatching(/Mismatch|BadDigest/)], [403, 'SignatureDoesNotMatch']]
    expect(codeOf(await put(url, headers, 'wrong'))).toEqual(digest)
    expect(codeOf(await put(url, headers, 'righ'))).toEqual(size)
    expect(codeOf(await put(url, headers, 'right!'))).toEqual(size)
    expect(await storedObjects(registry).keys('incoming')).toEqual([])
    expect((await registry.ok('getModelUpload', { params })).files[0].parts[0].stored).toBe(false)
    expect((await put(url, headers, 'right')).status).toBe(200)
  })

  it('is rejected with reasons, and may then be put right', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    await upload(registry, { kind: 'model', ...params, files: FILES })
    const rejection = [{ code: 'not-finite', message: 'There is a NaN in w.', file: 'model.safetensors', tensor: 'w' }]
    await runIngest(registry, { rejection })
    expect(await registry.ok('getModelVersion', { params })).toMatchObject({ state: 'rejected', rejection, digest: null })
    expect(codeOf(await registry.call('getModelVersion', { params, token: null }))).toEqual([404, 'not_found'])
    const completed = await registry.call('completeModelUpload', { params })
    expect([...codeOf(completed), completed.body.error.details.rejection]).toEqual([422, 'rejected', rejection])
    await publish(registry, { kind: 'model', ...params, files: { 'config.json': 'better' } })
    expect(await registry.ok('getModelVersion', { params, token: null })).toMatchObject({ state: 'published', rejection: null })
  })

  it('streams what the runner reports of its progress, and then the end', async () => {
    const org = await newOrganization(registry)
    const { job } = await upload(registry, { kind: 'model', org, name: 'base', version: 'v1', files: FILES })
    const response = await fetch(`${registry.url}/v1/jobs/${job.id}/events`, { headers: { Authorization: `Bearer ${registry.adminToken}` } })
    const messages = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream()).getReader()
    const next = async () => Job.parse(JSON.parse((await messages.read()).value!.data))
    expect(await next()).toMatchObject({ id: job.id, state: 'queued', progress: null })

    const claim = await claimIngest(registry)
    const progress = { phase: 'hashing', done: 300, total: 1022, unit: 'bytes' }
    await registry.ok('reportProgress', { params: { id: claim.job.id }, token: claim.token, body: { progress } })
    let seen = await next()
    if (seen.progress === null) seen = await next()
    expect(seen).toMatchObject({ state: 'running', progress })
    const failure = { code: 'worn_out', message: 'The disk is worn out.', retryable: false }
    await registry.ok('failJob', { params: { id: claim.job.id }, token: claim.token, body: failure })
    expect(await next()).toMatchObject({ state: 'failed', failure })
    expect((await messages.read()).done).toBe(true)
  })

  it('refuses a manifest of other files than were uploaded, and the job can still end', async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    await upload(registry, { kind: 'model', ...params, files: FILES })
    const claim = await claimIngest(registry)
    const facts = { modelType: null, architectures: [], tieWordEmbeddings: false, quantization: null, layerCount: null, vocabularySize: null, tokenizerDigest: null, chatTemplateDigest: null }
    const files = fileList(FILES).map(({ path, size, sha256: etag }) => ({ path, size, etag })).slice(1)
    const complete = (manifest: unknown) => registry.call('completeJob', { params: { id: claim.job.id }, token: claim.token, body: { result: { manifest, readme: null } } })
    expect(codeOf(await complete({ format: 'portllm.model/1', files, tensors: [], facts }))).toEqual([400, 'invalid_request'])
    expect(codeOf(await complete({ format: 'portllm.patch/1', files, tensors: [], adapterConfig: '' }))).toEqual([400, 'invalid_request'])
    expect((await registry.ok('getModelVersion', { params })).state).toBe('verifying')
    const whole = fileList(FILES).map(({ path, size, sha256: etag }) => ({ path, size, etag }))
    expect((await complete({ format: 'portllm.model/1', files: whole, tensors: [], facts })).status).toBe(204)
    expect(codeOf(await complete({ format: 'portllm.model/1', files: whole, tensors: [], facts }))).toEqual([409, 'stale_attempt'])
  })

  it('sends no bytes twice within an organization, and never another\'s', async () => {
    const [org, other] = [await newOrganization(registry), await newOrganization(registry)]
    const files = { 'config.json': `of ${org}`, 'model.safetensors': `weights of ${org}` }
    await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files })
    const params = { org, name: 'base', version: 'v2' }
    const second = await registry.ok('draftModelVersion', { params, body: { files: fileList({ ...files, 'config.json': 'changed' }) } })
    expect(second.files.map((file: any) => [file.path, file.held, file.parts.length])).toEqual([['config.json', false, 1], ['model.safetensors', true, 0]])
    await putFiles(second, { 'config.json': 'changed' })
    await registry.ok('completeModelUpload', { params })
    await runIngest(registry)
    expect((await registry.ok('getModelVersion', { params })).state).toBe('published')
    const theirs = await registry.ok('draftModelVersion', { params: { org: other, name: 'base', version: 'v1' }, body: { files: fileList(files) } })
    expect(theirs.files.map((file: any) => file.held)).toEqual([false, false])
  })

  it.each([
    ['no files', []],
    ['a path out of the folder', [{ path: '../x', size: 1, sha256: '0'.repeat(64) }]],
    ['an absolute path', [{ path: '/x', size: 1, sha256: '0'.repeat(64) }]],
    ['two paths that differ in case', [{ path: 'a', size: 1, sha256: '0'.repeat(64) }, { path: 'A', size: 1, sha256: '0'.repeat(64) }]],
    ['a negative size', [{ path: 'a', size: -1, sha256: '0'.repeat(64) }]],
    ['a size beyond integers', [{ path: 'a', size: 2 ** 60, sha256: '0'.repeat(64) }]],
    ['a digest that is none', [{ path: 'a', size: 1, sha256: 'A'.repeat(64) }]],
  ])('refuses %s', async (_, files) => {
    const org = await newOrganization(registry)
    const answer = await registry.call('draftModelVersion', { params: { org, name: 'm', version: 'v1' }, body: { files } })
    expect(answer.status).toBe(400)
    expect((await registry.ok('listModels', { query: { organization: org } })).items).toEqual([])
  })

  it.each([['merged'], ['a b'], ['..'], ['.x'], ['x'.repeat(97)]])('refuses the version %j', async (version) => {
    const org = await newOrganization(registry)
    const answer = await registry.call('draftModelVersion', { params: { org, name: 'm', version }, body: { files: fileList(FILES) } }).catch(() => ({ status: 404, body: { error: { code: 'routing' } } }))
    expect([400, 404]).toContain(answer.status)
  })

  it('needs the role publisher and the scope publish', async () => {
    const [org, other] = [await newOrganization(registry), await newOrganization(registry)]
    await publish(registry, { kind: 'model', org, name: 'base', version: 'v0', files: { 'config.json': `${org} v0` } })
    const body = { files: fileList(FILES) }
    const draft = (token: string | null) => registry.call('draftModelVersion', { params: { org, name: 'base', version: 'v1' }, body, token })
    expect(codeOf(await draft(null))).toEqual([401, 'unauthenticated'])
    expect(codeOf(await draft(await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish'] })))).toEqual([403, 'forbidden'])
    expect(codeOf(await draft(await newUser(registry, { organization: other, role: 'admin', scopes: ['read', 'publish'] })))).toEqual([403, 'forbidden'])
    expect(codeOf(await draft(await newToken(registry, ['read', 'admin'])))).toEqual([403, 'forbidden'])
    expect((await draft(await newUser(registry, { organization: org, role: 'publisher', scopes: ['publish'] }))).status).toBe(201)
    expect((await registry.call('getModelUpload', { params: { org, name: 'base', version: 'v1' }, token: await newUser(registry, { organization: other, role: 'admin', scopes: ['read', 'publish'] }) })).status).toBe(404)
  })

  it('lets a second publisher neither replace nor resume a draft', async () => {
    const org = await newOrganization(registry)
    const [one, two] = await Promise.all([1, 2].map(() => newUser(registry, { organization: org, role: 'publisher', scopes: ['publish'] })))
    const params = { org, name: 'base', version: 'v1' }
    expect((await registry.call('draftModelVersion', { params, token: one!, body: { files: fileList(FILES) } })).status).toBe(201)
    expect(codeOf(await registry.call('draftModelVersion', { params, token: two!, body: { files: fileList({ a: 'b' }) } }))).toEqual([409, 'version_exists'])
  })
})

describe('32 clients that publish one version at once', () => {
  it('with files of their own: exactly one wins, the others hear 409', { timeout: 120_000 }, async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'raced', version: 'v1' }
    const attempts = await Promise.all(
      Array.from({ length: 32 }, async (_, i) => {
        const files = { 'config.json': `client ${i}` }
        const draft = await registry.call('draftModelVersion', { params, body: { files: fileList(files) } })
        if (draft.status >= 300) return draft
        await putFiles(draft.body, files)
        return registry.call('completeModelUpload', { params, body: { digest: draft.body.digest } })
      }),
    )
    const won = attempts.filter((answer) => answer.status === 202)
    expect(won).toHaveLength(1)
    expect(attempts.filter((answer) => answer.status === 409)).toHaveLength(31)
    expect(new Set(attempts.filter((answer) => answer.status === 409).map((answer) => answer.body.error.code))).toEqual(new Set(['version_exists']))
    await runIngest(registry)
    expect((await registry.ok('getModelVersion', { params })).digest).toBe(won[0]!.body.digest)
  })

  it('with the same files: one version, one job', { timeout: 120_000 }, async () => {
    const org = await newOrganization(registry)
    const params = { org, name: 'raced', version: 'v1' }
    const files = { 'config.json': 'of all' }
    const answers = await Promise.all(
      Array.from({ length: 32 }, async () => {
        const draft = await registry.call('draftModelVersion', { params, body: { files: fileList(files) } })
        if (draft.body.state === 'draft') await putFiles(draft.body, files)
        return { created: draft.status, completed: await registry.call('completeModelUpload', { params }) }
      }),
    )
    expect(answers.filter((answer) => answer.created === 201)).toHaveLength(1)
    expect(new Set(answers.map((answer) => answer.completed.body.job.id)).size).toBe(1)
    await runIngest(registry)
    expect((await registry.ok('getModelVersion', { params })).state).toBe('published')
  })
})
