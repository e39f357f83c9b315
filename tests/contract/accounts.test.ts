import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newExpiredToken, newOrganization, newToken, newUser, publish, runIngest, startTestRegistry, upload, type TestRegistry } from './harness.ts'

let registry: TestRegistry
beforeAll(async () => { registry = await startTestRegistry() })
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body.error.code]

describe('organizations', () => {
  it('are made by the administrator, who becomes a member', async () => {
    const org = await newOrganization(registry)
    expect(await registry.ok('getOrganization', { params: { org } })).toMatchObject({ name: org, displayName: null })
    expect((await registry.ok('getWhoami')).organizations).toContainEqual({ name: org, role: 'admin' })
    expect((await registry.ok('listOrganizations', { query: { limit: 200 } })).items.map((item: any) => item.name)).toContain(org)
  })

  it('are unique whatever the case of their name', async () => {
    const org = await newOrganization(registry)
    expect(codeOf(await registry.call('createOrganization', { body: { name: org.toUpperCase() } }))).toEqual([409, 'already_exists'])
    expect(await registry.ok('getOrganization', { params: { org: org.toUpperCase() } })).toMatchObject({ name: org })
  })

  it.each(['', '.hidden', 'a b', 'a/b', 'models', 'MODELS', 'x'.repeat(97), '../x', 'näme', 'x.git'])('are not called %j', async (name) => {
    expect(codeOf(await registry.call('createOrganization', { body: { name } }))).toEqual([400, 'invalid_name'])
  })

  it('are made by nobody else', async () => {
    const org = await newOrganization(registry)
    const user = await newUser(registry, { organization: org, role: 'admin', scopes: ['read', 'publish', 'admin'] })
    expect(codeOf(await registry.call('createOrganization', { token: user, body: { name: 'theirs' } }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('createOrganization', { token: await newToken(registry, ['publish']), body: { name: 'theirs' } }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('createOrganization', { token: null, body: { name: 'theirs' } }))).toEqual([401, 'unauthenticated'])
  })

  it('with nothing public answer others like one that does not exist', async () => {
    const [mine, other] = [await newOrganization(registry), await newOrganization(registry)]
    const user = await newUser(registry, { organization: mine, role: 'reader', scopes: ['read'] })
    const hidden = await registry.call('getOrganization', { token: user, params: { org: other } })
    const absent = await registry.call('getOrganization', { token: user, params: { org: 'absent' } })
    expect([hidden.status, absent.status]).toEqual([404, 404])
    expect(hidden.body.error.message.replace(other, '?')).toBe(absent.body.error.message.replace('absent', '?'))
    expect((await registry.ok('listOrganizations', { token: user, query: { limit: 200 } })).items.map((item: any) => item.name)).toEqual([mine])
    expect((await registry.ok('listOrganizations', { token: null })).items).toEqual([])
  })
})

describe('tokens', () => {
  it('show themselves once, and are stored as a hash', async () => {
    const { token, ...shown } = await registry.ok('createToken', { body: { name: 'ci', scopes: ['read', 'publish', 'read'] } })
    expect(token).toMatch(/^plm_[0-9A-Za-z]{46}$/)
    expect(shown.scopes).toEqual(['read', 'publish'])
    const list = await registry.ok('listTokens')
    expect(list.items[0]).toEqual(shown)
    const { tokens } = await import('../../db/schema.ts')
    expect(JSON.stringify(await registry.server.dependencies.db.select().from(tokens))).not.toContain(token)
  })

  it('tell who they stand for', async () => {
    const org = await newOrganization(registry)
    const token = await newToken(registry, ['read'], org)
    expect(await registry.ok('getWhoami', { token })).toMatchObject({ user: { name: 'admin', isAdmin: false }, token: { scopes: ['read'], organization: org }, organizations: [{ name: org, role: 'admin' }] })
    expect(await registry.ok('getWhoami', { token: null })).toEqual({ user: null, token: null, organizations: [] })
  })

  it('end when they are revoked or expire', async () => {
    const { id, token } = await registry.ok('createToken', { body: { name: 'x', scopes: ['read'] } })
    await registry.ok('revokeToken', { params: { id } })
    await registry.ok('revokeToken', { params: { id } })
    expect(codeOf(await registry.call('getWhoami', { token }))).toEqual([401, 'unauthenticated'])

    const later = await registry.ok('createToken', { body: { name: 'x', scopes: ['read'], expiresAt: '2099-01-01T00:00:00Z' } })
    expect((await registry.call('getWhoami', { token: later.token })).status).toBe(200)
    expect((await registry.call('getWhoami', { token: await newExpiredToken(registry) })).status).toBe(401)
    expect(codeOf(await registry.call('createToken', { body: { name: 'x', scopes: ['read'], expiresAt: '2020-01-01T00:00:00Z' } }))).toEqual([400, 'invalid_request'])
  })

  it('never give more than the token that makes them', async () => {
    const org = await newOrganization(registry)
    const other = await newOrganization(registry)
    const reader = await newToken(registry, ['read'])
    expect(codeOf(await registry.call('createToken', { token: reader, body: { name: 'x', scopes: ['publish'] } }))).toEqual([403, 'forbidden'])
    expect(codeOf(await registry.call('createToken', { token: reader, body: { name: 'x', scopes: ['runner'] } }))).toEqual([403, 'forbidden'])
    const limited = await newToken(registry, ['read', 'publish', 'admin'], org)
    expect(codeOf(await registry.call('createToken', { token: limited, body: { name: 'x', scopes: ['read'] } }))).toEqual([403, 'forbidden'])
    expect((await registry.call('createToken', { token: limited, body: { name: 'x', scopes: ['read'], organization: other } })).status).toBe(404)
    expect((await registry.call('createToken', { token: limited, body: { name: 'x', scopes: ['read'], organization: org } })).status).toBe(201)
    expect(codeOf(await registry.call('createToken', { token: limited, body: { name: 'x', scopes: ['runner'], organization: org } }))).toEqual([403, 'forbidden'])
  })

  it('of somebody else are neither listed nor revoked', async () => {
    const org = await newOrganization(registry)
    const user = await newUser(registry, { organization: org, role: 'admin', scopes: ['read', 'publish', 'admin'] })
    const { id, token } = await registry.ok('createToken', { body: { name: 'mine', scopes: ['read'] } })
    expect((await registry.ok('listTokens', { token: user })).items).toHaveLength(1)
    expect(codeOf(await registry.call('revokeToken', { token: user, params: { id } }))).toEqual([404, 'not_found'])
    expect((await registry.call('getWhoami', { token })).status).toBe(200)
  })

  it('are listed in pages', async () => {
    const org = await newOrganization(registry)
    const token = await newUser(registry, { organization: org, role: 'reader', scopes: ['read'] })
    for (let i = 0; i < 4; i++) await registry.ok('createToken', { token, body: { name: `t${i}`, scopes: ['read'] } })
    const names: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const page: any = await registry.ok('listTokens', { token, query: { limit: 2, ...(cursor && { cursor }) } })
      names.push(...page.items.map((item: any) => item.name))
      cursor = page.nextCursor
    }
    expect(names).toEqual(['t3', 't2', 't1', 't0', 'test'])
    for (const wrong of ['x', 'bnVsbA', Buffer.from('["a","b"]').toString('base64url')]) {
      expect(codeOf(await registry.call('listTokens', { query: { cursor: wrong } }))).toEqual([400, 'invalid_request'])
    }
  })
})

describe('audit', () => {
  it('has one row for each change of every kind, in order', async () => {
    const org = await newOrganization(registry)
    const model = { org, name: 'base', version: 'v1' }
    const patch = { org, name: 'speech', version: '1.0.0' }
    await publish(registry, { kind: 'model', ...model, files: { 'model.safetensors': `weights of ${org}` } })
    await upload(registry, { kind: 'patch', ...patch, base: `${org}/base@v1`, files: { 'adapter_model.safetensors': `of ${org}` } })
    await runIngest(registry, { rejection: [{ code: 'non-finite', message: 'There is a NaN.' }] })
    await publish(registry, { kind: 'patch', ...patch, base: `${org}/base@v1`, files: { 'adapter_model.safetensors': `of ${org}` } })
    await registry.ok('updateModel', { params: model, body: { description: 'A base.' } })
    await registry.ok('updatePatch', { params: patch, body: { description: 'Of speech.' } })
    await registry.ok('setDistTag', { params: { ...patch, tag: 'stable' }, body: { version: '1.0.0' } })
    await registry.ok('removeDistTag', { params: { ...patch, tag: 'stable' } })
    await registry.ok('deprecatePatchVersion', { params: patch, body: { message: 'use 2.x' } })
    await registry.ok('undeprecatePatchVersion', { params: patch })
    await registry.ok('getMerged', { params: model, query: { patch: `${org}/speech` } })
    await registry.ok('getMerged', { params: model, query: { patch: `${org}/speech` } })
    await registry.ok('yankPatchVersion', { params: patch, body: { reason: 'wrong labels' } })
    await registry.ok('unyankPatchVersion', { params: patch })

    const { audit, organizations } = await import('../../db/schema.ts')
    const { asc, eq } = await import('drizzle-orm')
    const { db } = registry.server.dependencies
    const rows = await db.select({ action: audit.action }).from(audit).innerJoin(organizations, eq(organizations.id, audit.organizationId)).where(eq(organizations.name, org)).orderBy(asc(audit.id))
    const versions = (kind: string, ...verbs: string[]) => verbs.map((verb) => `${kind}-version.${verb}`)
    expect(rows.map((row) => row.action)).toEqual([
      'organization.create', ...versions('model', 'draft', 'upload', 'verify', 'publish'),
      ...versions('patch', 'draft', 'upload', 'verify', 'reject', 'draft', 'upload', 'verify', 'publish'),
      'model.update', 'patch.update', 'patch.tag', 'patch.untag', ...versions('patch', 'deprecate', 'undeprecate'),
      'derivation.request', ...versions('patch', 'yank', 'unyank'),
    ])
  })

  it('says who it was and which request, and never a token', async () => {
    const org = await newOrganization(registry)
    const answer = await registry.call('createToken', { body: { name: 'audited', scopes: ['read'], organization: org } })
    const { audit } = await import('../../db/schema.ts')
    const { eq } = await import('drizzle-orm')
    const rows = await registry.server.dependencies.db.select().from(audit).where(eq(audit.requestId, answer.headers.get('x-request-id')!))
    expect(rows).toMatchObject([{ action: 'token.create', subject: answer.body.id }])
    expect(rows[0]!.userId).toBe((await registry.ok('getWhoami')).user.id)
    expect(JSON.stringify(rows)).not.toContain(answer.body.token)
  })
})
