import { randomBytes } from 'node:crypto'
import { get } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { blobKey } from '../../api/ports/blob-store.ts'
import { ErrorBody } from '../../api/routes/error-responses.ts'
import { Plan } from '../../api/routes/plan/plan-schema.ts'
import type { Extent } from '../../patch/extent.ts'
import { sha256Hex, startFileFixture, type FileFixture, type StoredFile } from './file-fixture.ts'
import { DEPLOYMENT, STORE } from './harness.ts'
import { storedObjects, type StoredObjects } from './stored-objects.ts'

const MIB = 1024 * 1024
let fixture: FileFixture
let organization: { id: string; name: string }
let member: string
let outsider: string
/** Where the virtual file is, and what it holds. */
let derivation: { id: string; path: string }
let virtual: StoredFile

beforeAll(async () => {
  fixture = await startFileFixture()
  organization = await fixture.organization()
  member = await fixture.member(organization)
  outsider = await fixture.member(await fixture.organization(), 'admin', ['read', 'publish', 'admin'])
  const base = await fixture.model(organization)
  const patch = await fixture.patch(organization, base.id)
  derivation = await fixture.derivation(base.id, [patch.id])
  const { list, bytes } = await scatter([1, 13, 5000, 3, 2 * MIB + 7, 1, 70_000, 700_001])
  virtual = await fixture.file({ derivationId: derivation.id }, 'model.safetensors', list, bytes)
})

afterAll(() => fixture.close())

/** Extents of these lengths, each in the middle of a blob of its own, and the bytes that they make. */
async function scatter(lengths: number[]): Promise<{ list: Extent[]; bytes: Uint8Array }> {
  const list: Extent[] = []
  const pieces: Uint8Array[] = []
  for (const [index, length] of lengths.entries()) {
    const offset = index * 11
    const stored = randomBytes(offset + length + 5)
    list.push({ blob: await fixture.blob(stored), offset, length })
    pieces.push(stored.subarray(offset, offset + length))
  }
  return { list, bytes: new Uint8Array(Buffer.concat(pieces)) }
}

/** One uploaded file: its whole blob. */
async function upload(owner: Parameters<FileFixture['file']>[0], path: string, text: string | Uint8Array): Promise<StoredFile> {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text
  return fixture.file(owner, path, [{ blob: await fixture.blob(bytes), offset: 0, length: bytes.length }], bytes)
}

function ask(path: string, { method = 'GET', token, headers = {} }: { method?: string; token?: string; headers?: Record<string, string> } = {}): Promise<Response> {
  return fetch(`${fixture.registry.url}${path}`, { method, headers: { ...headers, ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }) } })
}

const virtualPath = () => `${derivation.path}/files/${virtual.path}`

/** Reads with node:http, which tells a whole body from one that was cut. */
function readRaw(path: string): Promise<{ status: number; received: number; complete: boolean; head: Buffer }> {
  return new Promise((resolve) => {
    get(`${fixture.registry.url}${path}`, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', () => {})
      response.on('close', () => {
        const head = Buffer.concat(chunks)
        resolve({ status: response.statusCode!, received: head.length, complete: response.complete, head })
      })
    })
  })
}

describe('bytes', () => {
  it('a virtual file is its extents in order', async () => {
    const response = await ask(virtualPath())
    expect(response.status).toBe(200)
    expect(response.headers.get('content-length')).toBe(String(virtual.bytes.length))
    expect(sha256Hex(new Uint8Array(await response.arrayBuffer()))).toBe(sha256Hex(virtual.bytes))
  })

  it('any range equals the slice of the whole', async () => {
    const size = virtual.bytes.length
    const edges = virtual.extents.reduce<number[]>((list, { length }) => [...list, list.at(-1)! + length], [0])
    const place = fc.oneof(fc.nat(size - 1), fc.constantFrom(...edges).chain((edge) => fc.integer({ min: -2, max: 2 }).map((by) => Math.min(Math.max(edge + by, 0), size - 1))))
    await fc.assert(fc.asyncProperty(place, place, fc.constantFrom('closed', 'open', 'suffix'), async (x, y, kind) => {
      const [first, last] = [Math.min(x, y), kind === 'closed' ? Math.max(x, y) : size - 1]
      const range = kind === 'closed' ? `bytes=${first}-${last}` : kind === 'open' ? `bytes=${first}-` : `bytes=-${size - first}`
      const response = await ask(virtualPath(), { headers: { Range: range } })
      expect(response.status).toBe(206)
      expect(response.headers.get('content-range')).toBe(`bytes ${first}-${last}/${size}`)
      expect(response.headers.get('content-length')).toBe(String(last - first + 1))
      expect(Buffer.compare(Buffer.from(await response.arrayBuffer()), virtual.bytes.subarray(first, last + 1))).toBe(0)
    }), { numRuns: DEPLOYMENT === 'edge' ? 40 : 120 })
  })

  it('a file without bytes is 200 with length 0, and has no range', async () => {
    const model = await fixture.model(organization)
    await fixture.file({ modelVersionId: model.id }, 'none.txt', [], new Uint8Array())
    await upload({ modelVersionId: model.id }, 'empty.txt', '')
    for (const name of ['none.txt', 'empty.txt']) {
      const whole = await ask(`${model.path}/files/${name}`)
      expect([whole.status, whole.headers.get('content-length'), await whole.text()]).toEqual([200, '0', ''])
      const part = await ask(`${model.path}/files/${name}`, { headers: { Range: 'bytes=0-' } })
      expect([part.status, part.headers.get('content-range')]).toEqual([416, 'bytes */0'])
      await part.body?.cancel()
    }
    const plan = Plan.parse(await (await ask(`${model.path}/plan`)).json())
    expect(plan.files.map((file) => file.extents)).toEqual([[], []])
  })
})

describe('requests', () => {
  const tag = () => `"${virtual.etag}"`
  it.each<[string, () => Record<string, string>, number]>([
    ['several ranges', () => ({ Range: 'bytes=0-1,4-5' }), 200],
    ['a malformed range', () => ({ Range: 'bytes=5-2' }), 200],
    ['a range beyond the end', () => ({ Range: 'bytes=99999999999-' }), 416],
    ['If-None-Match', () => ({ 'If-None-Match': `"x", W/${tag()}` }), 304],
    ['If-None-Match of another', () => ({ 'If-None-Match': '"x"' }), 200],
    ['If-None-Match with Range', () => ({ 'If-None-Match': tag(), Range: 'bytes=0-1' }), 304],
    ['If-Match', () => ({ 'If-Match': tag(), Range: 'bytes=0-1' }), 206],
    ['If-Match of another', () => ({ 'If-Match': '"x"', 'If-None-Match': tag() }), 412],
    ['If-Range', () => ({ 'If-Range': tag(), Range: 'bytes=0-1' }), 206],
    ['If-Range of another', () => ({ 'If-Range': '"x"', Range: 'bytes=0-1' }), 200],
    ['If-Range with a date', () => ({ 'If-Range': new Date().toUTCString(), Range: 'bytes=0-1' }), 200],
    ['If-Modified-Since', () => ({ 'If-Modified-Since': new Date(Date.now() + 1e9).toUTCString() }), 200],
    ['If-Unmodified-Since', () => ({ 'If-Unmodified-Since': new Date(0).toUTCString() }), 200],
  ])('%s', async (_name, headers, status) => {
    const response = await ask(virtualPath(), { headers: headers() })
    expect(response.status).toBe(status)
    expect(response.headers.get('etag')).toBe(tag())
    const body = new Uint8Array(await response.arrayBuffer())
    if (status === 200) expect(body.length).toBe(virtual.bytes.length)
    if (status === 304) expect([body.length, response.headers.get('content-type')]).toEqual([0, null])
    if (status === 416) expect(response.headers.get('content-range')).toBe(`bytes */${virtual.bytes.length}`)
    if (status >= 400) {
      const { error } = ErrorBody.parse(JSON.parse(new TextDecoder().decode(body)))
      expect(error.code).toBe(status === 412 ? 'precondition_failed' : 'range_not_satisfiable')
      expect(response.headers.get('cache-control')).toBe('no-store')
    }
  })

  it('HEAD has the headers of GET, ignores Range, and opens nothing', async () => {
    const whole = await ask(virtualPath())
    await whole.arrayBuffer()
    const opened = fixture.registry.server.dependencies.blobs.read
    let reads = 0
    Object.assign(fixture.registry.server.dependencies.blobs, { read: (...args: Parameters<typeof opened>) => (reads++, opened(...args)) })
    const head = await ask(virtualPath(), { method: 'HEAD', headers: { Range: 'bytes=0-1' } })
    Object.assign(fixture.registry.server.dependencies.blobs, { read: opened })
    expect([head.status, await head.text(), reads]).toEqual([200, '', 0])
    const without = (headers: Headers) => Object.fromEntries([...headers].filter(([name]) => !['date', 'x-request-id', 'connection', 'keep-alive'].includes(name)))
    expect(without(head.headers)).toEqual(without(whole.headers))
    expect((await ask(virtualPath(), { method: 'HEAD', headers: { 'If-None-Match': tag() } })).status).toBe(304)
    expect((await ask(virtualPath(), { method: 'HEAD', headers: { 'If-Match': '"x"' } })).status).toBe(412)
    expect((await ask(`${derivation.path}/files/none`, { method: 'HEAD' })).status).toBe(404)
  })

  it('other methods are refused', async () => {
    const response = await ask(virtualPath(), { method: 'DELETE' })
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET'])
  })
})

describe('headers and paths', () => {
  it('say what the file is, and that it stays so', async () => {
    const model = await fixture.model(organization)
    const file = await upload({ modelVersionId: model.id }, 'config.json', '{"a":1}')
    const response = await ask(`${model.path}/files/config.json`)
    expect(await response.json()).toEqual({ a: 1 })
    expect(Object.fromEntries(response.headers)).toMatchObject({
      etag: `"${sha256Hex(file.bytes)}"`,
      'accept-ranges': 'bytes',
      'content-type': 'application/json',
      'content-length': '7',
      'cache-control': 'public, max-age=31536000, immutable, no-transform',
      'x-content-type-options': 'nosniff',
      'content-security-policy': 'sandbox',
      'content-disposition': "inline; filename*=UTF-8''config.json",
    })
  })

  it('is private where any part of a merged model is internal', async () => {
    const open = await fixture.model(organization)
    const internal = await fixture.model(organization, { visibility: 'internal' })
    const patch = await fixture.patch(organization, open.id, { visibility: 'internal' })
    const publicPatch = await fixture.patch(organization, open.id)
    const subjects = [internal, patch, await fixture.derivation(open.id, [patch.id]), await fixture.derivation(internal.id, [publicPatch.id])].map(({ path }) => path)
    const owners = [{ modelVersionId: internal.id }, { patchVersionId: patch.id }, ...subjects.slice(2).map((path) => ({ derivationId: path.split('/').at(-1)! }))]
    for (const [index, owner] of owners.entries()) {
      await upload(owner, 'a.bin', 'x')
      const response = await ask(`${subjects[index]}/files/a.bin`, { token: member })
      expect([response.status, response.headers.get('cache-control')]).toEqual([200, 'private, max-age=31536000, immutable, no-transform'])
      await response.body?.cancel()
    }
  })

  it('paths may hold slashes, encoded or not, and any name', async () => {
    const model = await fixture.model(organization)
    for (const path of ['a/b/c.bin', 'größe 模型.bin', 'a%20b.bin', '100%.bin', 'a+b#c;d=e&f.bin', '%2e%2e/x']) {
      const file = await upload({ modelVersionId: model.id }, path, `bytes of ${path}`)
      const spellings = [encodeURIComponent(path), path.split('/').map(encodeURIComponent).join('/')]
      for (const spelling of spellings) {
        const response = await ask(`${model.path}/files/${spelling}`)
        expect([path, response.status, await response.text()]).toEqual([path, 200, new TextDecoder().decode(file.bytes)])
      }
    }
    for (const path of ['a/b', 'a/b/c.bin/', 'A/b/c.bin', '%zz', '%00', 'a%2f..%2fa%2fb%2fc.bin']) {
      const response = await ask(`${model.path}/files/${path}`)
      expect([path, response.status]).toEqual([path, 404])
      ErrorBody.parse(await response.json())
    }
    for (const path of ['/v1/models/a%00/b/v1/files/x', '/v1/models/a/b%00/v1/plan', '/v1/patches/a/b/1.0.0%00/plan', '/v1/derivations/%00/plan', '/v1/derivations/%00/files/a']) {
      expect([path, (await ask(path)).status]).toEqual([path, 404])
    }
  })
})

describe('who may see what', () => {
  /** What a caller can tell an answer by: everything but the request id, the date and the names that were asked for. */
  async function fingerprint(response: Response, names: string[]): Promise<unknown> {
    const headers = Object.fromEntries([...response.headers].filter(([name]) => !['date', 'x-request-id', 'content-length'].includes(name)))
    let body = (await response.text()).replace(/"requestId":"[^"]*"/, '')
    for (const name of names) body = body.replaceAll(name, 'NAME')
    return { status: response.status, headers, body }
  }

  it('foreign and missing answer alike, for files and plans of all three', async () => {
    const open = await fixture.model(organization)
    const model = await fixture.model(organization, { visibility: 'internal' })
    const draft = await fixture.model(organization, { state: 'draft' })
    const patch = await fixture.patch(organization, open.id, { visibility: 'internal' })
    const publicPatch = await fixture.patch(organization, open.id)
    const merged = await fixture.derivation(open.id, [publicPatch.id, patch.id])
    const mergedInternal = await fixture.derivation(model.id, [publicPatch.id])
    for (const owner of [{ modelVersionId: model.id }, { modelVersionId: draft.id }, { patchVersionId: patch.id }, { derivationId: merged.id }, { derivationId: mergedInternal.id }]) {
      await upload(owner, 'a.bin', 'secret')
    }
    for (const { path } of [model, draft, patch, merged, mergedInternal]) {
      const [, , kind] = path.split('/') as [string, string, string]
      const missing = kind === 'derivations' ? `/v1/derivations/${'0'.repeat(64)}` : `/v1/${kind}/nobody/nothing/${path.split('/').at(-1)}`
      const namesOf = (one: string) => [one.split('/').slice(3, 5).join('/')]
      for (const rest of ['/files/a.bin', '/files/none.bin', '/plan']) {
        for (const token of [undefined, outsider]) {
          const foreign = await fingerprint(await ask(`${path}${rest}`, { token }), namesOf(path))
          expect(foreign).toEqual(await fingerprint(await ask(`${missing}${rest}`, { token }), namesOf(missing)))
          expect(foreign).toMatchObject({ status: 404 })
        }
      }
      const own = await ask(`${path}/files/a.bin`, { token: member })
      expect([path, own.status]).toEqual([path, path === draft.path ? 409 : 200])
      await own.body?.cancel()
    }
  })

  it('a token that only runs jobs sees no internal file', async () => {
    const model = await fixture.model(organization, { visibility: 'internal' })
    await upload({ modelVersionId: model.id }, 'a.bin', 'secret')
    const runner = await fixture.member(organization, 'admin', ['runner'])
    expect((await ask(`${model.path}/files/a.bin`, { token: runner })).status).toBe(404)
  })

  it('what is not ready yet says so to those who may see it', async () => {
    const model = await fixture.model(organization)
    const patch = await fixture.patch(organization, model.id)
    const waiting = await fixture.derivation(model.id, [patch.id], 'queued')
    for (const rest of ['/files/a.bin', '/plan']) {
      const response = await ask(`${waiting.path}${rest}`)
      expect(response.status).toBe(409)
      expect(ErrorBody.parse(await response.json()).error.code).toBe('wrong_state')
    }
  })
})

describe('plans', () => {
  it('their signed requests make up the files', async () => {
    const response = await ask(`${derivation.path}/plan`)
    expect([response.status, response.headers.get('cache-control')]).toEqual([200, 'private, no-store'])
    const plan = Plan.parse(await response.json())
    expect(Date.parse(plan.expiresAt)).toBeGreaterThan(Date.now() + 3000_000)
    const [file] = plan.files
    expect(file).toMatchObject({ path: virtual.path, size: virtual.bytes.length, etag: virtual.etag })
    const pieces = await Promise.all(file!.extents.map(async ({ method, url, headers, length }) => {
      const piece = await fetch(url, { method, headers })
      expect(piece.status).toBe(206)
      const bytes = new Uint8Array(await piece.arrayBuffer())
      expect(bytes.length).toBe(length)
      return bytes
    }))
    expect(sha256Hex(new Uint8Array(Buffer.concat(pieces)))).toBe(sha256Hex(virtual.bytes))
  })

  it('models and patches have plans too', async () => {
    const model = await fixture.model(organization)
    const patch = await fixture.patch(organization, model.id)
    await upload({ modelVersionId: model.id }, 'b.bin', 'second')
    await upload({ modelVersionId: model.id }, 'a.bin', 'first')
    await upload({ patchVersionId: patch.id }, 'adapter.bin', 'third')
    const paths = async (path: string) => Plan.parse(await (await ask(`${path}/plan`)).json()).files.map((file) => file.path)
    expect(await paths(model.path)).toEqual(['a.bin', 'b.bin'])
    expect(await paths(patch.path)).toEqual(['adapter.bin'])
    expect(await (await ask(`${patch.path}/files/adapter.bin`)).text()).toBe('third')
  })

  it('a signed request is good for nothing else', async () => {
    const plan = Plan.parse(await (await ask(`${derivation.path}/plan`)).json())
    const { url, headers, offset, length } = plan.files[0]!.extents[2]!
    const other = plan.files[0]!.extents[4]!
    const changed = (change: (url: URL) => void) => {
      const copy = new URL(url)
      change(copy)
      return copy.href
    }
    const [signature, expires] = STORE === 'directory' ? ['signature', 'expires'] as const : ['X-Amz-Signature', 'X-Amz-Expires'] as const
    const attempts: [string, string, RequestInit][] = [
      ['another range', url, { headers: { Range: `bytes=${offset}-${offset + length}` } }],
      ['no range', url, {}],
      ['several ranges', url, { headers: { Range: `${headers.Range},0-1` } }],
      ['a changed signature', changed((copy) => copy.searchParams.set(signature, `A${copy.searchParams.get(signature)!.slice(1)}x`)), { headers }],
      ['no signature', changed((copy) => copy.searchParams.delete(signature)), { headers }],
      ['a later expiry', changed((copy) => copy.searchParams.set(expires, String(Number(copy.searchParams.get(expires)) + 1))), { headers }],
      ['a wider range in the URL', changed((copy) => copy.searchParams.set('range', `0-${offset + length}`)), { headers: { Range: `bytes=0-${offset + length - 1}` } }],
      ['another blob', changed((copy) => { copy.pathname = new URL(other.url).pathname }), { headers }],
      ['another method', url, { method: 'PUT', headers, body: 'x' }],
    ]
    for (const [name, target, init] of attempts) {
      const response = await fetch(target, init)
      expect([name, [403, 416].includes(response.status)]).toEqual([name, true])
      const text = await response.text()
      if (STORE === 'directory') ErrorBody.parse(JSON.parse(text))
    }
  })
})

describe('faults', () => {
  /** A file of three extents, the middle one of which is then harmed. */
  async function harmed(harm: (objects: StoredObjects, key: string) => Promise<unknown>): Promise<{ path: string; bytes: Uint8Array; sound: number }> {
    const model = await fixture.model(organization)
    const { list, bytes } = await scatter([6 * MIB, 3 * MIB, 40])
    await fixture.file({ modelVersionId: model.id }, 'a.bin', list, bytes)
    await harm(storedObjects(fixture.registry), blobKey(list[1]!.blob))
    return { path: `${model.path}/files/a.bin`, bytes, sound: list[0]!.length }
  }

  it.each<[string, (objects: StoredObjects, key: string) => Promise<unknown>]>([
    ['missing', (objects, key) => objects.remove(key)],
    ['short', async (objects, key) => objects.put(key, (await objects.get(key)).subarray(0, MIB))],
  ])('a blob that is %s cuts the connection, and no wrong byte is sent', async (_name, harm) => {
    const { path, bytes, sound } = await harmed(harm)
    const answer = await readRaw(path)
    expect(answer).toMatchObject({ status: 200, complete: false })
    expect(answer.received).toBeGreaterThan(0)
    expect(answer.received).toBeLessThan(sound + 3 * MIB)
    expect(Buffer.compare(answer.head, bytes.subarray(0, answer.received))).toBe(0)
    const beyond = await ask(path, { headers: { Range: `bytes=${sound + 2 * MIB}-${sound + 2 * MIB + 9}` } }).then((response) => response.arrayBuffer().then(() => response.status)).catch(() => 'cut')
    expect([500, 'cut']).toContain(beyond)
    expect((await ask(path, { headers: { Range: 'bytes=0-9' } })).status).toBe(206)
  })

  it('a client that leaves closes what was opened for it', async () => {
    const model = await fixture.model(organization)
    const { list, bytes } = await scatter([40 * MIB, 30 * MIB])
    await fixture.file({ modelVersionId: model.id }, 'a.bin', list, bytes)
    const objects = storedObjects(fixture.registry)
    const openBlobs = () => objects.openReads(list.map(({ blob }) => blobKey(blob)))
    let most = 0
    for (let round = 0; round < 4; round++) {
      const abort = new AbortController()
      const response = await fetch(`${fixture.registry.url}${model.path}/files/a.bin`, { signal: abort.signal })
      await response.body!.getReader().read()
      most = Math.max(most, openBlobs())
      abort.abort()
    }
    expect(most).toBeGreaterThan(0)
    // A connection that nothing goes over any more is kept for some seconds.
    for (let wait = 0; openBlobs() > 0 && wait < 500; wait++) await delay(20)
    expect(openBlobs()).toBe(0)
  })
})
