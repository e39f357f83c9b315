import {
  CopyObjectCommand, DeleteObjectCommand, GetObjectCommand, HeadObjectCommand, ListObjectsV2Command, paginateListObjectsV2, PutObjectCommand, S3ServiceException,
  type MultipartUpload,
} from '@aws-sdk/client-s3'
import { assertKey, assertStagedKey, BlobMissingError, blobKey, type BlobStore, type ByteRange, type SignedRequest, type StoredObject } from './blob-store.ts'
import type { Clock } from './clock.ts'
import { createS3Client, isMissing, OBJECT_TYPE, type S3Settings } from './s3-client.ts'
import { signS3Urls } from './s3-signing.ts'
import { openS3Uploads } from './s3-uploads.ts'
import { writeS3Object } from './s3-write.ts'

const GIB = 1024 ** 3
/** S3 copies 5 GiB at once at most; parts of this size are copied beside each other, sooner than one. */
const COPY_BYTES = GIB
/** The most that S3 takes. */
const MAX_PARTS = 10_000

export interface S3BlobStore extends BlobStore {
  /** Rejects, saying why, where the bucket cannot be used. */
  check(): Promise<void>
}

/** Blobs in a bucket of any S3: AWS, R2, Ceph, MinIO. Runs on Node and in Workers. */
export function createS3BlobStore({ settings, clock, copyBytes = COPY_BYTES }: { settings: S3Settings; clock: Clock; copyBytes?: number }): S3BlobStore {
  const Bucket = settings.bucket
  const client = createS3Client(settings)
  const sign = signS3Urls({ client, settings, clock })
  const uploads = openS3Uploads(client, Bucket)

  async function head(key: string): Promise<{ size: number; etag: string } | null> {
    assertKey(key)
    try {
      const { ContentLength, ETag } = await client.send(new HeadObjectCommand({ Bucket, Key: key }))
      return { size: ContentLength!, etag: ETag! }
    } catch (error) {
      if (isMissing(error)) return null
      throw error
    }
  }

  async function requireHead(key: string): Promise<{ size: number; etag: string }> {
    const found = await head(key)
    if (found === null) throw new BlobMissingError(key)
    return found
  }

  async function readRange(key: string, { offset, length }: ByteRange, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    assertKey(key)
    try {
      const { Body, ContentLength } = await client.send(new GetObjectCommand({ Bucket, Key: key, Range: rangeHeader(offset, length) }), { ...(signal && { abortSignal: signal }) })
      const body: ReadableStream<Uint8Array> = Body!.transformToWebStream()
      if (ContentLength === length) return body
      await body.cancel()
      throw endsBefore(key, offset + length)
    } catch (error) {
      if (isMissing(error)) throw new BlobMissingError(key)
      if (error instanceof S3ServiceException && error.name === 'InvalidRange') throw endsBefore(key, offset + length)
      throw error
    }
  }

  async function* objectsUnder(Prefix: string): AsyncGenerator<StoredObject, void, undefined> {
    for await (const page of paginateListObjectsV2({ client }, { Bucket, Prefix })) {
      for (const { Key, Size, LastModified } of page.Contents ?? []) yield { key: Key!, size: Size!, modifiedAt: LastModified! }
    }
  }

  async function remove(key: string): Promise<void> {
    await client.send(new DeleteObjectCommand({ Bucket, Key: key }))
  }

  async function copy(from: { key: string; size: number; etag: string }, to: string): Promise<void> {
    const partBytes = Math.max(copyBytes, Math.ceil(from.size / MAX_PARTS))
    if (from.size > partBytes) await uploads.copy(from, to, partBytes)
    else await client.send(new CopyObjectCommand({ Bucket, Key: to, CopySource: `${Bucket}/${from.key}`, CopySourceIfMatch: from.etag }))
  }

  return {
    async check() {
      await client.send(new ListObjectsV2Command({ Bucket, MaxKeys: 1 })).catch((error: Error) => {
        throw new Error(`the bucket ${Bucket} at ${settings.endpoint ?? 'AWS'} cannot be used: ${error.name}${error.message === 'UnknownError' ? '' : `: ${error.message}`}`)
      })
    },
    async read(key, range, { signal } = {}) {
      if (range.length > 0) return readRange(key, range, signal)
      await requireHead(key)
      return new ReadableStream({ start: (controller) => controller.close() })
    },
    async open(key) {
      await requireHead(key)
      return {
        read: async (into, position) => fill(into, await readRange(key, { offset: position, length: into.length })),
        async close() {},
      }
    },
    async size(key) {
      return (await head(key))?.size ?? null
    },
    async *list(prefix) {
      if (prefix === 'incoming') {
        for await (const upload of uploads.list('blobs/')) yield { ...(await uploads.describe(upload)), key: copyKey(upload) }
        return
      }
      yield* objectsUnder(`${prefix}/`)
      if (prefix === 'uploads') for await (const upload of uploads.list(`${prefix}/`)) yield uploads.describe(upload)
    },
    async putBlob(sha256, bytes) {
      const key = blobKey(sha256)
      if ((await head(key)) === null) await client.send(new PutObjectCommand({ Bucket, Key: key, Body: bytes, ContentLength: bytes.length, ContentType: OBJECT_TYPE }))
    },
    async write(key, content, body) {
      assertKey(key)
      await writeS3Object(client, { Bucket, Key: key }, content, body)
    },
    async signGet(key, range) {
      assertKey(key)
      return sign({ method: 'GET', key, headers: range === null ? {} : { Range: rangeHeader(range.offset, range.length) } })
    },
    async signPut(key, { size, sha256 }) {
      assertKey(key)
      return sign({ method: 'PUT', key, size, headers: { 'Content-Type': OBJECT_TYPE }, ...(sha256 !== undefined && { sha256 }) })
    },
    async signParts(key, parts) {
      assertKey(key)
      const uploadId = await uploads.findOrBegin(key)
      return Promise.all(parts.map(({ number, size }): Promise<SignedRequest> => sign({ method: 'PUT', key, size, query: { partNumber: String(number), uploadId } })))
    },
    async stagedParts(key) {
      const whole = await head(key)
      if (whole !== null) return [{ number: 1, size: whole.size }]
      const uploadId = await uploads.find(key)
      return uploadId === undefined ? [] : uploads.parts(key, uploadId)
    },
    async assemble(key, parts) {
      if ((await head(key)) !== null) return
      const uploadId = await uploads.find(key)
      const arrived = new Map(uploadId === undefined ? [] : (await uploads.parts(key, uploadId)).map((part) => [part.number, part]))
      if (uploadId === undefined || parts.some(({ number, size }) => arrived.get(number)?.size !== size)) throw new BlobMissingError(key)
      try {
        await uploads.complete(key, uploadId, parts.map(({ number }) => ({ PartNumber: number, ETag: arrived.get(number)!.etag })))
      } catch (error) {
        // Another request may have joined them meanwhile.
        if (!isMissing(error)) throw error
        await requireHead(key)
      }
    },
    async promote(key, { sha256, size }) {
      const target = blobKey(sha256)
      const held = await head(target)
      if (held !== null && held.size !== size) throw new Error(`blob ${sha256} is there with ${held.size} bytes, not ${size}`)
      if (held !== null) return
      const staged = await requireHead(key)
      if (staged.size !== size) throw new BlobMissingError(key)
      await copy({ key, ...staged }, target)
      const copied = await head(target)
      if (copied?.size !== size) throw new Error(`blob ${sha256} was stored with ${copied?.size ?? 'no'} bytes, not ${size}`)
    },
    async discard(prefix) {
      assertStagedKey(prefix)
      if (prefix.startsWith('incoming/')) {
        for await (const upload of uploads.list('blobs/')) if (copyKey(upload) === prefix) await uploads.abort(upload)
        return
      }
      const isUnder = (key: string) => key === prefix || key.startsWith(`${prefix}/`)
      for await (const { key } of objectsUnder(prefix)) if (isUnder(key)) await remove(key)
      for await (const upload of uploads.list(prefix)) if (isUnder(upload.Key!)) await uploads.abort(upload)
    },
    async remove(sha256) {
      await remove(blobKey(sha256))
    },
  }
}

/** The name of a copy that has not ended, or never will. */
function copyKey({ Key, UploadId }: MultipartUpload): string {
  const id = Array.from(UploadId!, (character) => character.charCodeAt(0).toString(16)).join('')
  return `incoming/${Key!.split('/').at(-1)}.${id}`
}

function rangeHeader(offset: number, length: number): string {
  return `bytes=${offset}-${offset + length - 1}`
}

function endsBefore(key: string, end: number): Error {
  return new Error(`the stored object ${key} ends before byte ${end}`)
}

async function fill(into: Uint8Array, stream: ReadableStream<Uint8Array>): Promise<void> {
  let at = 0
  for await (const chunk of stream) {
    into.set(chunk, at)
    at += chunk.length
  }
  if (at !== into.length) throw new Error(`the store sent ${at} bytes of ${into.length}`)
}
