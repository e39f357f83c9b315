import type { RouteConfig } from '@hono/zod-openapi'
import { count } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { audit } from '../../db/schema.ts'
import { newExpiredToken, newOrganization, newToken, newUser, operations, parseAnswer, publish, startTestRegistry, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let org: string
let credentials: Record<string, string>
beforeAll(async () => {
  registry = await startTestRegistry()
  org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: { 'config.json': '{}' } })
  await publish(registry, { kind: 'patch', org, name: 'speech', version: '1.0.0', base: `${org}/base@v1`, files: { 'README.md': '# x' } })
  await publish(registry, { kind: 'dataset', org, name: 'notes', version: '1', files: { 'config.json': '[]' } })
  const revoked = await registry.ok('createToken', { body: { name: 'x', scopes: ['read', 'publish', 'admin'] } })
  await registry.ok('revokeToken', { params: { id: revoked.id } })
  credentials = {
    garbage: 'Bearer nonsense',
    'another scheme': 'Basic YWRtaW46YWRtaW4=',
    'an empty token': 'Bearer ',
    'a token of the right form that is none': 'Bearer plm_0000000000000000000000000000000000000000000000',
    'a token cut off': `Bearer ${registry.adminToken.slice(0, -1)}`,
    'a revoked token': `Bearer ${revoked.token}`,
    'an expired token': `Bearer ${await newExpiredToken(registry)}`,
    'an unsigned JWT': `Bearer ${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from('{"jobId":"x","kind":"ingest"}').toString('base64url')}.`,
  }
})
afterAll(() => registry.close())

const needsToken = (route: RouteConfig) => !(route.security ?? []).some((one) => Object.keys(one).length === 0)

/** Values that let a request reach its operation. */
function request(route: RouteConfig): { path: string; init: RequestInit } {
  const [name, version] = route.path.startsWith('/v1/patches') ? ['speech', '1.0.0'] : route.path.startsWith('/v1/datasets') ? ['notes', '1'] : ['base', 'v1']
  const values: Record<string, string> = { org, name, version, id: crypto.randomUUID(), tag: 'latest', path: 'config.json' }
  const path = route.path.replaceAll(/\{([^}:]+)[^}]*\}/g, (_, name: string) => values[name]!)
  const method = route.method.toUpperCase()
  return { path: `${path}${path.endsWith('/merged') || path === '/v1/resolve' ? `?patch=${org}/speech&target=${org}/base@v1` : ''}`, init: { method, ...(['GET', 'HEAD', 'DELETE'].includes(method) ? {} : { body: '{}', headers: { 'Content-Type': 'application/json' } }) } }
}

async function answer(route: RouteConfig, authorization?: string): Promise<{ status: number; body: any; headers: Headers }> {
  const { path, init } = request(route)
  const response = await fetch(registry.url + path, { ...init, headers: { ...(init.headers as Record<string, string>), ...(authorization === undefined ? {} : { Authorization: authorization }) } })
  return parseAnswer(route, response)
}

async function auditRows(): Promise<number> {
  const [row] = await registry.server.dependencies.db.select({ rows: count() }).from(audit)
  return row!.rows
}

describe('every operation', () => {
  it('has an id of its own, a summary and a security', () => {
    expect(new Set(operations.map((route) => route.operationId)).size).toBe(operations.length)
    for (const route of operations) expect([route.operationId, typeof route.summary, Array.isArray(route.security)]).toEqual([expect.any(String), 'string', true])
    expect(operations.length).toBeGreaterThan(40)
  })

  it.each(operations.map((route) => [route.operationId!, route] as const))('%s refuses wrong credentials with 401, and changes nothing', async (_, route) => {
    const before = await auditRows()
    for (const [name, authorization] of Object.entries(credentials)) {
      const { status, body, headers } = await answer(route, authorization)
      expect([name, status, route.method === 'head' ? undefined : body.error.code, headers.get('www-authenticate'), headers.get('cache-control')]).toEqual([name, 401, route.method === 'head' ? undefined : 'unauthenticated', 'Bearer', 'private, no-store'])
    }
    expect(await auditRows()).toBe(before)
  })

  it.each(operations.filter(needsToken).map((route) => [route.operationId!, route] as const))('%s refuses no credentials at all with 401', async (_, route) => {
    const before = await auditRows()
    const { status, body, headers } = await answer(route)
    expect([status, body.error.code, headers.get('cache-control')]).toEqual([401, 'unauthenticated', 'no-store'])
    expect(await auditRows()).toBe(before)
  })

  it.each(operations.filter((route) => route.method !== 'get' && route.method !== 'head').map((route) => [route.operationId!, route] as const))('%s changes nothing for a token that may only read', async (operationId, route) => {
    const tokens = { 'the scope read': await newToken(registry, ['read']), 'the scope runner': await newToken(registry, ['runner']), 'the role reader': await newUser(registry, { organization: org, role: 'reader', scopes: ['read', 'publish', 'admin'] }) }
    const before = await auditRows()
    for (const [name, token] of Object.entries(tokens)) {
      // A user's own token may always make and revoke tokens; a runner may claim: there the input is what is wrong.
      const { status } = await answer(route, `Bearer ${token}`)
      expect([operationId, name, status >= 400 && status < 500]).toEqual([operationId, name, true])
    }
    expect(await auditRows()).toBe(before)
  })
})
