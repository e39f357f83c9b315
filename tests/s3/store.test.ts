import { setTimeout as sleep } from 'node:timers/promises'
import { CreateMultipartUploadCommand, HeadObjectCommand, UploadPartCopyCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BlobMissingError, blobKey, type SignedRequest } from '../../api/ports/blob-store.ts'
import { systemClock } from '../../api/ports/clock.ts'
import { createS3BlobStore, type S3BlobStore } from '../../api/ports/s3-blob-store.ts'
import { createS3Client } from '../../api/ports/s3-client.ts'
import { writeS3Object } from '../../api/ports/s3-write.ts'
import { collectGarbage } from '../../gpu-runner/garbage-collector.ts'
import { sha256 } from '../contract/harness.ts'
import { createBucket, type TestBucket } from '../setup/s3.ts'

const MIB = 1024 * 1024

let bucket: TestBucket
let store: S3BlobStore
beforeAll(async () => {
  bucket = await createBucket()
  store = newStore()
})
afterAll(() => bucket.remove())

/** As after a restart, or in another process. */
function newStore(copyBytes = 5 * MIB): S3BlobStore {
  return createS3BlobStore({ settings: bucket.settings, clock: systemClock, copyBytes })
}

let keys = 0
const newKey = () => `uploads/object-${++keys}`

async function send({ url, headers }: SignedRequest, body: Uint8Array | string, changed: Record<string, string> = {}): Promise<number> {
  const response = await fetch(url, { method: 'PUT', headers: { ...headers, ...changed }, body })
  await response.arrayBuffer()
  return response.status
}

async function read(key: string, offset: number, length: number): Promise<string> {
  return new Response(await store.read(key, { offset, length })).text()
}

async function listed(prefix: 'blobs' | 'uploads' | 'attempts' | 'incoming'): Promise<{ key: string; size: number }[]> {
  const found = []
  for await (const { key, size } of store.list(prefix)) found.push({ key, size })
  return found
}

/** Equal parts but the last, and bytes that tell where they are. */
function large(): { bytes: Buffer; parts: { number: number; size: number }[]; slice: (number: number) => Buffer } {
  const bytes = Buffer.alloc(2 * 5 * MIB + 100)
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(at + keys, at)
  const parts = [{ number: 1, size: 5 * MIB }, { number: 2, size: 5 * MIB }, { number: 3, size: 100 }]
  return { bytes, parts, slice: (number) => bytes.subarray((number - 1) * 5 * MIB, (number - 1) * 5 * MIB + parts[number - 1]!.size) }
}

describe('bytes that come as a stream', () => {
  const write = (key: string, content: { size: number; sha256: string }, body: AsyncIterable<Uint8Array>) =>
    writeS3Object(createS3Client(bucket.settings), { Bucket: bucket.settings.bucket, Key: key }, content, body, 5 * MIB)
  async function* chunksOf(bytes: Buffer): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += 1_000_003) yield bytes.subarray(at, at + 1_000_003)
  }

  it('are stored whole, in one request or in equal parts', async () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from('small'), large().bytes.subarray(0, 10 * MIB), large().bytes]) {
      const key = newKey()
      await write(key, { size: bytes.length, sha256: sha256(bytes) }, chunksOf(bytes))
      expect(await store.size(key)).toBe(bytes.length)
      expect(sha256(new Uint8Array(await new Response(await store.read(key, { offset: 0, length: bytes.length })).arrayBuffer()))).toBe(sha256(bytes))
      await store.discard(key)
    }
  })

  it('are refused where they are others than announced, and leave nothing', async () => {
    const { bytes } = large()
    const key = newKey()
    for (const content of [{ size: bytes.length, sha256: sha256('other') }, { size: bytes.length + 1, sha256: sha256(bytes) }, { size: 5, sha256: sha256('other') }]) {
      await expect(write(key, content, chunksOf(content.size === 5 ? Buffer.from('small') : bytes))).rejects.toThrow('were sent for')
    }
    await expect(write(key, { size: bytes.length, sha256: sha256(bytes) }, (async function* () { yield bytes.subarray(0, 6 * MIB); throw new Error('the disk is gone') })())).rejects.toThrow('the disk is gone')
    expect([await store.size(key), await store.stagedParts(key)]).toEqual([null, []])
  })
})

describe('a signed PUT', () => {
  it('takes the very bytes that were announced, and leaves nothing of others', async () => {
    const key = newKey()
    const put = await store.signPut(key, { size: 5, sha256: sha256('right') })
    expect(await send(put, 'wrong')).toBe(400)
    for (const body of ['righ', 'right!', '']) expect(await send(put, body)).toBe(403)
    expect(await send(put, 'right', { 'Content-Type': 'text/html' })).toBe(403)
    expect(await store.size(key)).toBeNull()
    expect(await send(put, 'right')).toBe(200)
    expect([await store.size(key), await read(key, 1, 3)]).toEqual([5, 'igh'])
  })

  it('takes an empty object', async () => {
    const key = newKey()
    expect(await send(await store.signPut(key, { size: 0, sha256: sha256('') }), '')).toBe(200)
    expect([await store.size(key), await read(key, 0, 0)]).toEqual([0, ''])
    await store.promote(key, { sha256: sha256(''), size: 0 })
    expect(await store.size(blobKey(sha256('')))).toBe(0)
  })

  it('without a digest takes any bytes of its size alone', async () => {
    const put = await store.signPut('attempts/job/0/1', { size: 5 })
    expect([await send(put, 'four'), await send(put, 'fives')]).toEqual([403, 200])
  })
})

describe('an object in parts', () => {
  it('arrives in any order, across restarts, and is joined once', async () => {
    const key = newKey()
    const { bytes, parts, slice } = large()
    const first = await store.signParts(key, parts)
    expect([await send(first[2]!, slice(3)), await send(first[1]!, slice(2).subarray(1))]).toEqual([200, 403])
    await expect(store.assemble(key, parts)).rejects.toThrow(BlobMissingError)

    store = newStore()
    expect((await store.stagedParts(key)).map(({ number, size }) => ({ number, size }))).toEqual([{ number: 3, size: 100 }])
    const resumed = await store.signParts(key, parts)
    expect([await send(resumed[0]!, slice(1)), await send(first[1]!, slice(2))]).toEqual([200, 200])
    expect(await listed('uploads')).toContainEqual({ key, size: bytes.length })
    await Promise.all([store.assemble(key, parts), newStore().assemble(key, parts)])
    await store.assemble(key, parts)
    expect(await store.stagedParts(key)).toEqual([{ number: 1, size: bytes.length }])
    expect(sha256(Buffer.from(await read(key, 0, 4)))).toBe(sha256(bytes.subarray(0, 4)))
  })

  it('is one upload for all who begin it at once', async () => {
    const key = newKey()
    const { parts, slice } = large()
    const all = await Promise.all(Array.from({ length: 8 }, () => newStore().signParts(key, parts)))
    const begun = async () => (await listed('uploads')).filter((upload) => upload.key === key).length
    const before = await begun()
    const [later] = await newStore().signParts(key, parts)
    expect([before > 0, await begun()]).toEqual([true, before])
    expect(await send(later!, slice(1))).toBe(200)
    expect((await store.stagedParts(key)).map(({ number }) => number)).toEqual([1])
    // Whoever was told of another one sends those parts again.
    const idOf = ({ url }: SignedRequest) => new URL(url).searchParams.get('uploadId')
    expect(all.filter(([part]) => idOf(part!) === idOf(later!)).length).toBeGreaterThan(0)
    // One that is begun later, past the store, changes nothing.
    await sleep(1100)
    await createS3Client(bucket.settings).send(new CreateMultipartUploadCommand({ Bucket: bucket.settings.bucket, Key: key }))
    expect(idOf((await store.signParts(key, parts))[0]!)).toBe(idOf(later!))
    await store.discard(key)
    expect(await listed('uploads')).not.toContainEqual(expect.objectContaining({ key }))
  })
})

describe('a blob', () => {
  it('is copied by the store, in parts where it is large, and the one that is there wins', async () => {
    const key = newKey()
    const { bytes, parts, slice } = large()
    for (const [index, part] of (await store.signParts(key, parts)).entries()) expect(await send(part, slice(index + 1))).toBe(200)
    await store.assemble(key, parts)
    const blob = { sha256: sha256(bytes), size: bytes.length }
    await expect(store.promote(key, { ...blob, size: 7 })).rejects.toThrow(BlobMissingError)
    await Promise.all([store.promote(key, blob), newStore().promote(key, blob)])
    const client = createS3Client(bucket.settings)
    const head = () => client.send(new HeadObjectCommand({ Bucket: bucket.settings.bucket, Key: blobKey(blob.sha256) }))
    const { ETag, ContentType, ContentLength } = await head()
    expect([ETag, ContentType, ContentLength]).toEqual([expect.stringMatching(/-3"$/), 'application/octet-stream', bytes.length])
    const stored = await new Response(await store.read(blobKey(blob.sha256), { offset: 0, length: bytes.length })).arrayBuffer()
    expect(sha256(new Uint8Array(stored))).toBe(blob.sha256)

    await store.discard(key)
    await newStore(1024 * MIB).promote(key, blob)
    expect((await head()).ETag).toBe(ETag)
    await expect(store.promote(key, { ...blob, size: 7 })).rejects.toThrow(`is there with ${bytes.length} bytes, not 7`)
    await expect(store.promote(key, { sha256: sha256('other'), size: 5 })).rejects.toThrow(BlobMissingError)
    expect(await listed('incoming')).toEqual([])
    await store.remove(blob.sha256)
    await store.remove(blob.sha256)
    expect(await store.size(blobKey(blob.sha256))).toBeNull()
  })

  it('that a killed server was copying is told as incoming, and discarded without touching others', async () => {
    const source = newKey()
    await send(await store.signPut(source, { size: 5 }), 'bytes')
    const client = createS3Client(bucket.settings)
    const begin = async () => {
      const upload = { Bucket: bucket.settings.bucket, Key: blobKey(sha256('half')) }
      const { UploadId } = await client.send(new CreateMultipartUploadCommand(upload))
      await client.send(new UploadPartCopyCommand({ ...upload, UploadId, PartNumber: 1, CopySource: `${bucket.settings.bucket}/${source}` }))
    }
    await begin()
    const [left] = await listed('incoming')
    expect(left).toEqual({ key: expect.stringContaining(`incoming/${sha256('half')}.`), size: 5 })
    await begin()
    await store.discard(left!.key)
    expect((await listed('incoming')).map(({ key }) => key === left!.key)).toEqual([false])
    for (const { key } of await listed('incoming')) await store.discard(key)
    expect([await listed('incoming'), await store.size(source)]).toEqual([[], 5])
  })
})

describe('reading', () => {
  it('tells what is missing, and what ends early', async () => {
    const key = newKey()
    await send(await store.signPut(key, { size: 10 }), '0123456789')
    await expect(read('uploads/none', 0, 1)).rejects.toThrow(BlobMissingError)
    await expect(read('uploads/none', 0, 0)).rejects.toThrow(BlobMissingError)
    await expect(store.open('uploads/none')).rejects.toThrow(BlobMissingError)
    await expect(read(key, 8, 3)).rejects.toThrow('ends before byte 11')
    await expect(read(key, 10, 1)).rejects.toThrow('ends before byte 11')
    const opened = await store.open(key)
    const into = new Uint8Array(3)
    await opened.read(into, 7)
    expect(new TextDecoder().decode(into)).toBe('789')
    await expect(opened.read(into, 8)).rejects.toThrow('ends before byte 11')
    await opened.close()
  })

  it('waits for its reader, however much garbage is collected meanwhile', async () => {
    const key = newKey()
    await send(await store.signPut(key, { size: 8 * MIB }), new Uint8Array(8 * MIB))
    const stream = await store.read(key, { offset: 0, length: 8 * MIB })
    for (let round = 0; round < 5; round++) {
      collectGarbage('major')
      await sleep(20)
    }
    expect((await new Response(stream).arrayBuffer()).byteLength).toBe(8 * MIB)
  })

  it('ends with its signal, and a bucket that is not there is no missing object', async () => {
    const key = newKey()
    await send(await store.signPut(key, { size: 8 * MIB }), new Uint8Array(8 * MIB))
    const stop = new AbortController()
    const reader = (await store.read(key, { offset: 0, length: 8 * MIB }, { signal: stop.signal })).getReader()
    await reader.read()
    stop.abort(new Error('the client left'))
    await expect((async () => { while (!(await reader.read()).done); })()).rejects.toThrow('the client left')
    const nowhere = createS3BlobStore({ settings: { ...bucket.settings, bucket: 'portllm-test-nowhere' }, clock: systemClock })
    await expect(nowhere.read(key, { offset: 0, length: 1 })).rejects.toThrow(expect.objectContaining({ name: 'NoSuchBucket' }))
    await expect(nowhere.check()).rejects.toThrow('the bucket portllm-test-nowhere')
    await store.check()
  })
})

it('discards an object or a folder, and nothing whose name only begins alike', async () => {
  for (const key of ['attempts/a/1/x', 'attempts/a/1/y', 'attempts/a/10/x', 'uploads/alike', 'uploads/alike2']) await send(await store.signPut(key, { size: 1 }), 'x')
  await store.discard('attempts/a/1')
  await store.discard('uploads/alike')
  expect((await listed('attempts')).map(({ key }) => key)).toContain('attempts/a/10/x')
  expect((await listed('attempts')).map(({ key }) => key).filter((key) => key.startsWith('attempts/a/1/'))).toEqual([])
  expect([await store.size('uploads/alike'), await store.size('uploads/alike2')]).toEqual([null, 1])
  await expect(store.discard('blobs/sha256')).rejects.toThrow('blobs are not discarded')
  for (const key of ['../x', 'uploads/../x', '/etc/passwd', 'uploads//x', 'uploads/.x']) await expect(store.signGet(key, null)).rejects.toThrow('is not a key')
})
