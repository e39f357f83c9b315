import { afterAll, beforeAll, expect, it } from 'vitest'
import { fileList, newOrganization, newToken, newUser, publish, runIngest, startTestRegistry, upload, type TestRegistry } from './harness.ts'

let registry: TestRegistry
beforeAll(async () => { registry = await startTestRegistry() })
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body?.error?.code]
const ROWS = { 'train.jsonl': '{"text":"a"}\n', 'validation.csv': 'text\nb\n', 'README.md': '# Notes' }

it('is published, described, listed and fetched', async () => {
  const org = await newOrganization(registry)
  const params = { org, name: 'notes', version: '1.0' }
  const sent = await upload(registry, { kind: 'dataset', ...params, files: ROWS, description: 'Of a ward.' })
  expect(sent.job).toMatchObject({ kind: 'ingest', subject: { kind: 'dataset-version', reference: `${org}/notes@1.0` } })
  expect(codeOf(await registry.call('getDatasetVersion', { params, token: null }))).toEqual([404, 'not_found'])
  expect(codeOf(await registry.call('getDataset', { params, token: null }))).toEqual([404, 'not_found'])
  expect((await runIngest(registry)).status).toBe(204)

  const version = await registry.ok('getDatasetVersion', { params, token: null })
  expect(version).toMatchObject({ reference: `${org}/notes@1.0`, state: 'published', digest: sent.digest, rejection: null })
  expect(version.files.map(({ path, etag }: any) => [path, etag]).sort()).toEqual(fileList(ROWS).map(({ path, sha256 }) => [path, sha256]).sort())
  expect(await registry.ok('getDataset', { params, token: null })).toMatchObject({ organization: org, name: 'notes', description: 'Of a ward.', visibility: 'public', versions: [{ version: '1.0', digest: sent.digest }] })
  const { items } = await registry.ok('listDatasets', { query: { organization: org, q: 'ward' }, token: null })
  expect(items).toMatchObject([{ organization: org, name: 'notes', latestVersion: '1.0' }])
  expect((await registry.ok('listDatasets', { query: { organization: org, q: 'none' }, token: null })).items).toEqual([])
  const file = await registry.call('getDatasetFile', { params: { ...params, path: 'train.jsonl' }, token: null })
  expect([file.status, file.body]).toEqual([200, ROWS['train.jsonl']])
  // What has published something public is seen by everybody.
  expect((await registry.ok('getOrganization', { params: { org }, token: null })).name).toBe(org)
})

it('never changes, and the same bytes are not sent twice', async () => {
  const org = await newOrganization(registry)
  const params = { org, name: 'notes', version: '1.0' }
  await publish(registry, { kind: 'dataset', ...params, files: ROWS })
  const again = await registry.call('draftDatasetVersion', { params, body: { files: fileList({ 'train.jsonl': 'other' }) } })
  expect([...codeOf(again), again.body.error.details.same]).toEqual([409, 'version_exists', false])
  const next = await registry.ok('draftDatasetVersion', { params: { ...params, version: '1.1' }, body: { files: fileList({ ...ROWS, 'train.jsonl': 'more' }) } })
  expect(Object.fromEntries(next.files.map(({ path, held }: any) => [path, held]))).toEqual({ 'train.jsonl': false, 'validation.csv': true, 'README.md': true })
  expect(await registry.ok('getDatasetUpload', { params: { ...params, version: '1.1' } })).toMatchObject({ state: 'draft', digest: next.digest })
  // Of a dataset and a model, the same files are not the same.
  const model = await registry.ok('draftModelVersion', { params, body: { files: fileList(ROWS) } })
  expect(model.digest).not.toBe((await registry.ok('getDatasetVersion', { params })).digest)
})

it('that is rejected says why, and may be put right', async () => {
  const org = await newOrganization(registry)
  const params = { org, name: 'notes', version: '1.0' }
  await upload(registry, { kind: 'dataset', ...params, files: { 'notes.py': 'x' } })
  await runIngest(registry, { rejection: [{ code: 'not-data', message: 'notes.py is no data.', file: 'notes.py' }] })
  expect(await registry.ok('getDatasetVersion', { params })).toMatchObject({ state: 'rejected', rejection: [{ code: 'not-data', file: 'notes.py' }] })
  await publish(registry, { kind: 'dataset', ...params, files: ROWS })
  expect((await registry.ok('getDatasetVersion', { params })).state).toBe('published')
})

it('that is internal does not exist for others; only publishers publish, and admins change it', async () => {
  const org = await newOrganization(registry)
  const params = { org, name: 'notes', version: '1.0' }
  await publish(registry, { kind: 'dataset', ...params, files: ROWS, visibility: 'internal' })
  const reader = await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish', 'admin'] })
  const publisher = await newUser(registry, { organization: org, role: 'publisher', scopes: ['read', 'publish', 'admin'] })
  const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
  const runner = await newToken(registry, ['runner'])
  for (const token of [null, stranger, runner]) {
    for (const operation of ['getDataset', 'getDatasetVersion']) expect(codeOf(await registry.call(operation, { params, token }))).toEqual([404, 'not_found'])
    expect(codeOf(await registry.call('getDatasetFile', { params: { ...params, path: 'train.jsonl' }, token }))).toEqual([404, 'not_found'])
    expect((await registry.ok('listDatasets', { query: { organization: org }, token })).items).toEqual([])
  }
  expect((await registry.ok('getDatasetVersion', { params, token: reader })).state).toBe('published')
  const draft = (token: string) => registry.call('draftDatasetVersion', { params: { ...params, version: '2.0' }, body: { files: fileList(ROWS) }, token })
  expect([codeOf(await draft(reader)), codeOf(await draft(stranger))]).toEqual([[403, 'forbidden'], [404, 'not_found']])
  expect((await draft(publisher)).status).toBe(201)
  for (const operation of ['getDatasetUpload', 'completeDatasetUpload']) expect(codeOf(await registry.call(operation, { params: { ...params, version: '2.0' }, token: reader }))).toEqual([403, 'forbidden'])
  const update = (token: string) => registry.call('updateDataset', { params, body: { visibility: 'public' }, token })
  expect([codeOf(await update(publisher)), codeOf(await update(stranger))]).toEqual([[403, 'forbidden'], [404, 'not_found']])
  expect((await registry.ok('updateDataset', { params, body: { visibility: 'public' } })).visibility).toBe('public')
  expect((await registry.ok('getDatasetVersion', { params, token: null })).state).toBe('published')
  for (const [bad, code] of [[{ version: '1..0' }, 'invalid_name'], [{ name: '.x' }, 'invalid_name']] as const) {
    expect([bad, ...codeOf(await registry.call('draftDatasetVersion', { params: { ...params, ...bad }, body: { files: fileList(ROWS) } }))]).toEqual([bad, 400, code])
  }
})
