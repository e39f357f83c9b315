import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fileList, newOrganization, startTestRegistry, type TestRegistry } from '../contract/harness.ts'

let registry: TestRegistry
let put: { url: string; headers: Record<string, string> }
let get: { url: string; headers: Record<string, string> }
let part: { url: string; headers: Record<string, string> }
beforeAll(async () => {
  registry = await startTestRegistry()
  const org = await newOrganization(registry)
  const draft = await registry.ok('draftModelVersion', { params: { org, name: 'm', version: 'v1' }, body: { files: fileList({ a: '0123456789' }) } })
  put = draft.files[0].parts[0]
  expect((await fetch(put.url, { method: 'PUT', headers: put.headers, body: '0123456789' })).status).toBe(200)
  const key = new URL(put.url).pathname.slice('/blobs/'.length)
  const { blobs } = registry.server.dependencies
  get = await blobs.signGet(key, null)
  part = await blobs.signGet(key, { offset: 2, length: 3 })
})
afterAll(() => registry.close())

async function fetchText(url: string, init: RequestInit = {}): Promise<[number, string]> {
  const response = await fetch(url, init)
  return [response.status, await response.text()]
}

describe('signed URLs of the local blob store', () => {
  it('give the whole object, or the range asked for', async () => {
    expect(await fetchText(get.url)).toEqual([200, '0123456789'])
    expect(await fetchText(get.url, { headers: { Range: 'bytes=4-5' } })).toEqual([206, '45'])
    expect(await fetchText(get.url, { headers: { Range: 'bytes=8-' } })).toEqual([206, '89'])
    expect((await fetchText(get.url, { headers: { Range: 'bytes=10-' } }))[0]).toBe(416)
    const head = await fetch(get.url, { method: 'HEAD' })
    expect([head.status, head.headers.get('content-length')]).toEqual([200, '10'])
  })

  it('for a range give that range and no other', async () => {
    const response = await fetch(part.url, { headers: part.headers })
    expect([response.status, response.headers.get('content-range'), await response.text()]).toEqual([206, 'bytes 2-4/10', '234'])
    expect((await fetchText(part.url))[0]).toBe(416)
    expect((await fetchText(part.url, { headers: { Range: 'bytes=2-5' } }))[0]).toBe(416)
  })

  it.each([
    ['without a signature', (url: URL) => url.searchParams.delete('signature')],
    ['with another signature', (url: URL) => url.searchParams.set('signature', 'A'.repeat(43))],
    ['that lives longer', (url: URL) => url.searchParams.set('expires', '9999999999')],
    ['of another object', (url: URL) => { url.pathname += '0' }],
    ['of another range', (url: URL) => url.searchParams.set('range', '0-10')],
    ['without its range', (url: URL) => url.searchParams.delete('range')],
    ['with more constraints', (url: URL) => url.searchParams.set('size', '10')],
    ['out of the folder', (url: URL) => { url.pathname = '/blobs/uploads/..%2f..%2fserver.pid' }],
  ])('%s are refused', async (_, change) => {
    const url = new URL(part.url)
    change(url)
    const [status, text] = await fetchText(url.href, { headers: part.headers })
    expect([status, JSON.parse(text).error.code]).toEqual([403, 'forbidden'])
  })

  it('are for one method', async () => {
    expect((await fetchText(put.url))[0]).toBe(403)
    expect((await fetchText(get.url, { method: 'PUT', body: 'x' }))[0]).toBe(403)
    expect(await fetchText(get.url)).toEqual([200, '0123456789'])
  })

  it('expire', async () => {
    const { signBlobUrl } = await import('../../api/ports/directory-blob-signature.ts')
    const secret = new Uint8Array(32).fill(1)
    const at = (hour: number) => signBlobUrl({ publicUrl: 'http://x', secret, clock: { now: () => new Date(Date.UTC(2026, 0, 1, hour)) } })
    const url = new URL(at(1).sign('GET', 'uploads/a', {}))
    expect(at(1).verify('GET', 'uploads/a', url.searchParams)).toEqual({})
    expect(at(3).verify('GET', 'uploads/a', url.searchParams)).toBeNull()
  })

  it('that name no key of the store are never signed', async () => {
    const { blobs } = registry.server.dependencies
    for (const key of ['../x', 'uploads/../x', 'database/PG_VERSION', '/etc/passwd', 'uploads//x', 'uploads/.x']) await expect(blobs.signGet(key, null)).rejects.toThrow('is not a key')
    await expect(blobs.discard('blobs')).rejects.toThrow()
  })
})
