import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sampleConfig, samplePatch, sampleTensors } from '../../patch/sample-manifests.ts'
import { newOrganization, newToken, newUser, publish, fileList, runIngest, startTestRegistry, upload, type TestRegistry } from './harness.ts'

let registry: TestRegistry
beforeAll(async () => { registry = await startTestRegistry() })
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body.error?.code]

/** An organization with the model `base@v1`. */
async function withBase(): Promise<string> {
  const org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: { 'config.json': `base of ${org}` } })
  return org
}

async function publishPatch(org: string, version: string, more: Record<string, unknown> = {}, name = 'speech'): Promise<void> {
  await publish(registry, { kind: 'patch', org, name, version, base: `${org}/base@v1`, files: { 'adapter_config.json': `${name} ${version} of ${org}`, 'README.md': `# ${version}` }, ...more })
}

async function visit(operationId: string, query: Record<string, string | number>, token?: string | null): Promise<any[]> {
  const items: any[] = []
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: any = await registry.ok(operationId, { query: { ...query, ...(cursor && { cursor }) }, token })
    items.push(...page.items)
    cursor = page.nextCursor
  }
  return items
}

describe('patches', () => {
  it('are published onto a base, and described', async () => {
    const org = await withBase()
    await publishPatch(org, '1.0.0', { description: 'Of speech.', targetRange: '>=1.0.0' })
    const base = await registry.ok('getModelVersion', { params: { org, name: 'base', version: 'v1' } })
    const patch = await registry.ok('getPatch', { params: { org, name: 'speech' }, token: null })
    expect(patch).toMatchObject({
      organization: org, name: 'speech', description: 'Of speech.', visibility: 'public', readme: '# 1.0.0', distTags: { latest: '1.0.0' },
      versions: [{ version: '1.0.0', state: 'published', base: { reference: `${org}/base@v1`, digest: base.digest }, targetRange: '>=1.0.0', yanked: null, deprecated: null }],
    })
    const version = await registry.ok('getPatchVersion', { params: { org, name: 'speech', version: '1.0.0' }, token: null })
    expect(version).toMatchObject({ reference: `${org}/speech@1.0.0`, digest: patch.versions[0].digest, files: [{ path: 'README.md' }, { path: 'adapter_config.json' }] })
    expect((await registry.ok('getPatchManifest', { params: { org, name: 'speech', version: '1.0.0' }, token: null })).format).toBe('portllm.patch/1')
    expect(await registry.ok('getPatchReadme', { params: { org, name: 'speech' }, token: null })).toBe('# 1.0.0')
  })

  it('need a base that is there, and say what to do', async () => {
    const [org, other] = [await withBase(), await newOrganization(registry)]
    await publish(registry, { kind: 'model', org: other, name: 'secret', version: 'v1', files: { 'config.json': other }, visibility: 'internal' })
    const draft = (base: string, token?: string) => registry.call('draftPatchVersion', { params: { org, name: 'p', version: '1.0.0' }, body: { files: fileList({ a: 'b' }), base }, token })
    const absent = await draft(`${org}/base@v9`)
    expect(codeOf(absent)).toEqual([404, 'base_not_found'])
    expect(absent.body.error.message).toContain('Publish the model version')
    const user = await newUser(registry, { organization: org, role: 'publisher', scopes: ['read', 'publish'] })
    expect(codeOf(await draft(`${other}/secret@v1`, user))).toEqual([404, 'base_not_found'])
    expect(codeOf(await draft(`${org}/base`))).toEqual([400, 'invalid_reference'])
    expect(codeOf(await draft('nonsense'))).toEqual([400, 'invalid_reference'])
    await registry.ok('draftModelVersion', { params: { org, name: 'base', version: 'v2' }, body: { files: fileList({ a: 'b' }) } })
    expect(codeOf(await draft(`${org}/base@v2`))).toEqual([404, 'base_not_found'])
  })

  it('that do not fit the base that they name are rejected, tensor by tensor, and may be put right', async () => {
    const org = await withBase()
    const params = { org, name: 'speech', version: '1.0.0' }
    const patch = { kind: 'patch', ...params, base: `${org}/base@v1`, files: { 'adapter_config.json': `of ${org}` } } as const
    await upload(registry, patch)
    const { tensors } = samplePatch(sampleConfig(), sampleTensors(2, 16))
    expect((await runIngest(registry, { tensors })).status).toBe(204)
    const rejected = await registry.ok('getPatchVersion', { params })
    expect(rejected).toMatchObject({ state: 'rejected', digest: null })
    expect(rejected.rejection).toContainEqual({
      code: 'shape-mismatch', tensor: 'model.layers.0.self_attn.q_proj.weight',
      message: expect.stringMatching(new RegExp(`does not fit its base ${org}/base@v1: .*expected \\[16, 16\\], found \\[8, 8\\]`)),
    })
    expect(codeOf(await registry.call('getPatch', { params, token: null }))).toEqual([404, 'not_found'])
    await publish(registry, patch)
    expect(await registry.ok('getPatchVersion', { params, token: null })).toMatchObject({ state: 'published', rejection: null })
  })

  it('whose config contradicts its tensors are rejected', async () => {
    const org = await withBase()
    const params = { org, name: 'speech', version: '1.0.0' }
    await upload(registry, { kind: 'patch', ...params, base: `${org}/base@v1`, files: { 'adapter_config.json': `of ${org}` } })
    await runIngest(registry, { tensors: samplePatch(sampleConfig(), sampleTensors().slice(1)).tensors })
    expect(await registry.ok('getPatchVersion', { params })).toMatchObject({ state: 'rejected', rejection: [{ code: 'unpaired-factor' }] })
  })

  it.each([['1.0'], ['v1.0.0'], ['latest'], ['1.0.0+build'], ['01.0.0']])('have no version %s', async (version) => {
    const org = await withBase()
    expect(codeOf(await registry.call('draftPatchVersion', { params: { org, name: 'p', version }, body: { files: fileList({ a: 'b' }), base: `${org}/base@v1` } }))).toEqual([400, 'invalid_name'])
  })

  it('move latest as npm does: to greater versions, not to prereleases, and not with a tag', async () => {
    const org = await withBase()
    const tags = () => registry.ok('listDistTags', { params: { org, name: 'speech' }, token: null })
    await publishPatch(org, '1.1.0')
    await publishPatch(org, '1.0.1')
    expect(await tags()).toEqual({ latest: '1.1.0' })
    await publishPatch(org, '2.0.0-rc.1')
    expect(await tags()).toEqual({ latest: '1.1.0' })
    await publishPatch(org, '2.0.0', { tag: 'next' })
    expect(await tags()).toEqual({ latest: '1.1.0', next: '2.0.0' })
    await publishPatch(org, '1.10.0')
    expect(await tags()).toEqual({ latest: '1.10.0', next: '2.0.0' })
  })

  it('have dist-tags that can be set and removed', async () => {
    const org = await withBase()
    await publishPatch(org, '1.0.0')
    const params = { org, name: 'speech' }
    expect(await registry.ok('setDistTag', { params: { ...params, tag: 'stable' }, body: { version: '1.0.0' } })).toEqual({ latest: '1.0.0', stable: '1.0.0' })
    expect(codeOf(await registry.call('setDistTag', { params: { ...params, tag: 'stable' }, body: { version: '9.9.9' } }))).toEqual([404, 'not_found'])
    expect(codeOf(await registry.call('setDistTag', { params: { ...params, tag: '1.x' }, body: { version: '1.0.0' } }))).toEqual([400, 'invalid_name'])
    expect(await registry.ok('removeDistTag', { params: { ...params, tag: 'stable' } })).toEqual({ latest: '1.0.0' })
    expect(codeOf(await registry.call('removeDistTag', { params: { ...params, tag: 'stable' } }))).toEqual([404, 'not_found'])
    expect(codeOf(await registry.call('removeDistTag', { params: { ...params, tag: 'latest' } }))).toEqual([409, 'wrong_state'])
    const reader = await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish'] })
    expect(codeOf(await registry.call('setDistTag', { params: { ...params, tag: 'x' }, body: { version: '1.0.0' }, token: reader }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('removeDistTag', { params: { ...params, tag: 'latest' }, token: reader }))).toEqual([403, 'forbidden'])
  })

  it('are yanked and deprecated, which changes the package and not the version', async () => {
    const org = await withBase()
    await publishPatch(org, '1.0.0')
    const params = { org, name: 'speech', version: '1.0.0' }
    const before = await registry.ok('getPatchManifest', { params })
    const yanked = await registry.ok('yankPatchVersion', { params, body: { reason: 'wrong data' } })
    expect(yanked.versions[0].yanked).toMatchObject({ reason: 'wrong data' })
    const again = await registry.ok('yankPatchVersion', { params, body: { reason: 'very wrong data' } })
    expect(again.versions[0].yanked).toEqual({ at: yanked.versions[0].yanked.at, reason: 'very wrong data' })
    expect((await registry.ok('deprecatePatchVersion', { params, body: { message: 'Use 2.' } })).versions[0]).toMatchObject({ deprecated: 'Use 2.', yanked: { reason: 'very wrong data' } })
    expect(await registry.ok('getPatchManifest', { params })).toEqual(before)
    expect((await registry.ok('unyankPatchVersion', { params })).versions[0]).toMatchObject({ deprecated: 'Use 2.', yanked: null })
    expect((await registry.ok('undeprecatePatchVersion', { params })).versions[0].deprecated).toBeNull()
    expect(codeOf(await registry.call('yankPatchVersion', { params, body: { reason: ' ' } }))).toEqual([400, 'invalid_request'])
    const reader = await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish'] })
    for (const operation of ['unyankPatchVersion', 'undeprecatePatchVersion']) expect(codeOf(await registry.call(operation, { params, token: reader }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('yankPatchVersion', { params, body: { reason: 'x' }, token: reader }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('deprecatePatchVersion', { params, body: { message: 'x' }, token: await newToken(registry, ['read']) }))).toEqual([403, 'forbidden'])
  })

  it('that are not published cannot be yanked', async () => {
    const org = await withBase()
    const params = { org, name: 'speech', version: '1.0.0' }
    await registry.ok('draftPatchVersion', { params, body: { files: fileList({ a: 'b' }), base: `${org}/base@v1` } })
    expect(codeOf(await registry.call('yankPatchVersion', { params, body: { reason: 'x' } }))).toEqual([409, 'wrong_state'])
  })
})

describe('visibility', () => {
  it('internal packages are seen by their organization, and by others like nothing at all', async () => {
    const org = await newOrganization(registry)
    await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: { 'config.json': org }, visibility: 'internal' })
    await publishPatch(org, '1.0.0', { visibility: 'internal' })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    const member = await newUser(registry, { organization: org, role: 'reader', scopes: ['read'] })
    const model = { org, name: 'base', version: 'v1' }
    const patch = { org, name: 'speech', version: '1.0.0' }
    const reads: [string, Record<string, string>][] = [
      ['getModel', model], ['getModelVersion', model], ['getModelManifest', model], ['getModelLineage', model],
      ['getPatch', patch], ['getPatchVersion', patch], ['getPatchManifest', patch], ['getPatchReadme', patch], ['listDistTags', patch], ['getOrganization', { org }],
    ]
    for (const [operationId, params] of reads) {
      expect((await registry.call(operationId, { params, token: member })).status).toBe(200)
      for (const token of [null, stranger]) {
        const hidden = await registry.call(operationId, { params, token })
        const absent = await registry.call(operationId, { params: { ...params, org: 'absent' }, token })
        expect([operationId, hidden.status, hidden.body.error.message.replaceAll(org, '?')]).toEqual([operationId, 404, absent.body.error.message.replaceAll('absent', '?')])
      }
    }
    const changes: [string, Record<string, string>, unknown][] = [
      ['updateModel', model, { description: 'x' }], ['updatePatch', patch, { description: 'x' }], ['yankPatchVersion', patch, { reason: 'x' }], ['setDistTag', { ...patch, tag: 'x' }, { version: '1.0.0' }],
      ['draftModelVersion', model, { files: fileList({ a: 'b' }) }], ['completeModelUpload', model, {}],
    ]
    for (const [operationId, params, body] of changes) expect([operationId, ...codeOf(await registry.call(operationId, { params, body, token: stranger }))]).toEqual([operationId, 404, 'not_found'])
    expect(await visit('listModels', { organization: org }, stranger)).toEqual([])
    expect(await visit('listPatches', { organization: org }, null)).toEqual([])
    expect(await visit('listPatches', { organization: org }, member)).toHaveLength(1)
    expect((await registry.call('getModelManifest', { params: model, token: member })).headers.get('cache-control')).toContain('private')
  })

  it('is changed by admins of the organization, with effect on the next request', async () => {
    const org = await withBase()
    const params = { org, name: 'base' }
    const publisher = await newUser(registry, { organization: org, role: 'publisher', scopes: ['read', 'publish', 'admin'] })
    expect(codeOf(await registry.call('updateModel', { params, body: { visibility: 'internal' }, token: publisher }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('updateModel', { params, body: {} }))).toEqual([400, 'invalid_request'])
    expect(await registry.ok('updateModel', { params, body: { visibility: 'internal', description: 'new' } })).toMatchObject({ visibility: 'internal', description: 'new' })
    expect((await registry.call('getModel', { params, token: null })).status).toBe(404)
    await registry.ok('updateModel', { params, body: { visibility: 'public' } })
    expect(await registry.ok('getModel', { params, token: null })).toMatchObject({ visibility: 'public', description: 'new' })
    await publishPatch(org, '1.0.0')
    expect(await registry.ok('updatePatch', { params: { org, name: 'speech' }, body: { description: 'better' } })).toMatchObject({ description: 'better', visibility: 'public' })
    expect(codeOf(await registry.call('updatePatch', { params: { org, name: 'speech' }, body: { description: 'x' }, token: publisher }))).toEqual([403, 'forbidden'])
  })
})

describe('lineage', () => {
  it('lists the ancestors, nearest first', async () => {
    const org = await withBase()
    await publish(registry, { kind: 'model', org, name: 'base', version: 'v2', files: { 'config.json': `v2 ${org}` }, parent: { reference: `${org}/base@v1`, kind: 'continued-pretraining' } })
    await publish(registry, { kind: 'model', org, name: 'chat', version: 'v1', files: { 'config.json': `chat ${org}` }, parent: { reference: `${org}/base@v2`, kind: 'instruction-tuning' } })
    const { ancestors } = await registry.ok('getModelLineage', { params: { org, name: 'chat', version: 'v1' }, token: null })
    expect(ancestors.map(({ reference, kind }: any) => [reference, kind])).toEqual([[`${org}/base@v2`, 'instruction-tuning'], [`${org}/base@v1`, 'continued-pretraining']])
    expect((await registry.ok('getModelVersion', { params: { org, name: 'chat', version: 'v1' } })).parent).toEqual({ reference: `${org}/base@v2`, kind: 'instruction-tuning' })
    expect((await registry.ok('getModelLineage', { params: { org, name: 'base', version: 'v1' } })).ancestors).toEqual([])
  })

  it('needs a parent that is published', async () => {
    const org = await withBase()
    const draft = (reference: string) => registry.call('draftModelVersion', { params: { org, name: 'base', version: 'v2' }, body: { files: fileList({ a: 'b' }), parent: { reference, kind: 'other' } } })
    expect(codeOf(await draft(`${org}/base@v9`))).toEqual([404, 'not_found'])
    expect(codeOf(await draft(`${org}/base`))).toEqual([400, 'invalid_reference'])
    await registry.ok('draftModelVersion', { params: { org, name: 'base', version: 'v3' }, body: { files: fileList({ a: 'b' }) } })
    expect(codeOf(await draft(`${org}/base@v3`))).toEqual([409, 'wrong_state'])
  })
})

describe('search and pages', () => {
  it('finds words in name and description, taken literally', async () => {
    const org = await withBase()
    await publishPatch(org, '1.0.0', { description: 'Clinical notes, 100% German' }, 'notes')
    await publishPatch(org, '1.0.0', { description: 'Radiology' }, 'scans_v2')
    const find = async (q: string) => (await visit('listPatches', { organization: org, q }, null)).map((item) => item.name)
    expect(await find('CLINICAL german')).toEqual(['notes'])
    expect(await find('scans_')).toEqual(['scans_v2'])
    expect(await find('100%')).toEqual(['notes'])
    expect(await find('%')).toEqual(['notes'])
    expect(await find("' or 1=1 --")).toEqual([])
    expect(await find('\\')).toEqual([])
    expect(await find('')).toEqual(['notes', 'scans_v2'])
    expect((await visit('listModels', { organization: org, q: 'bas' }, null)).map((item) => item.name)).toEqual(['base'])
  })

  it('lists patches of a base', async () => {
    const org = await withBase()
    await publish(registry, { kind: 'model', org, name: 'second', version: 'v1', files: { 'config.json': `second ${org}` } })
    await publishPatch(org, '1.0.0')
    await publishPatch(org, '1.0.0', { base: `${org}/second@v1` }, 'other')
    expect((await visit('listPatches', { base: `${org}/second` }, null)).map((item) => item.name)).toEqual(['other'])
    expect(codeOf(await registry.call('listPatches', { query: { base: `${org}/absent` } }))).toEqual([404, 'not_found'])
  })

  it('gives every item once, in order, whatever the page size', async () => {
    const org = await withBase()
    const names = ['b', 'A', 'd', 'C', 'e']
    for (const name of names) await publishPatch(org, '1.0.0', {}, name)
    for (const limit of [1, 2, 5, 200]) expect((await visit('listPatches', { organization: org, limit }, null)).map((item) => item.name)).toEqual(['A', 'b', 'C', 'd', 'e'])
    for (const limit of [0, 201, 'x']) expect((await registry.call('listPatches', { query: { limit } })).status).toBe(400)
    expect(codeOf(await registry.call('listPatches', { query: { cursor: 'garbage' } }))).toEqual([400, 'invalid_request'])
    const organizations = await visit('listOrganizations', { limit: 3 })
    expect(new Set(organizations.map((item) => item.name)).size).toBe(organizations.length)
  })
})
