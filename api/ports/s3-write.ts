import { createHash } from 'node:crypto'
import { AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CreateMultipartUploadCommand, PutObjectCommand, UploadPartCommand, type CompletedPart, type S3Client } from '@aws-sdk/client-s3'
import { OBJECT_TYPE } from './s3-client.ts'

/** What is in memory at once. */
const PART_BYTES = 16 * 1024 * 1024
/** The most that S3 takes. */
const MAX_PARTS = 10_000

/** Sends an object whose bytes come as a stream, in equal parts where there are many. It is there whole, with this SHA-256, or not at all. */
export async function writeS3Object(client: S3Client, at: { Bucket: string; Key: string }, { size, sha256 }: { size: number; sha256: string }, body: AsyncIterable<Uint8Array>, partBytes = PART_BYTES): Promise<void> {
  const parts = inParts(body, Math.max(partBytes, Math.ceil(size / MAX_PARTS)))
  const hash = createHash('sha256')
  const assertWhole = (sent: number) => {
    const digest = hash.digest('hex')
    if (sent !== size || digest !== sha256) throw new Error(`${sent} bytes with the SHA-256 ${digest} were sent for ${at.Key}, not ${size} with ${sha256}`)
  }
  if (size <= partBytes) {
    let whole: Uint8Array = new Uint8Array()
    let sent = 0
    for await (const part of parts) {
      whole = part
      sent += part.length
      hash.update(part)
    }
    assertWhole(sent)
    await client.send(new PutObjectCommand({ ...at, Body: whole, ContentLength: size, ContentType: OBJECT_TYPE }))
    return
  }
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ ...at, ContentType: OBJECT_TYPE }))
  try {
    const done: CompletedPart[] = []
    let sent = 0
    for await (const part of parts) {
      hash.update(part)
      sent += part.length
      const PartNumber = done.length + 1
      const { ETag } = await client.send(new UploadPartCommand({ ...at, UploadId, PartNumber, Body: part, ContentLength: part.length }))
      done.push({ PartNumber, ETag })
    }
    assertWhole(sent)
    await client.send(new CompleteMultipartUploadCommand({ ...at, UploadId, MultipartUpload: { Parts: done } }))
  } catch (error) {
    await client.send(new AbortMultipartUploadCommand({ ...at, UploadId })).catch(() => {})
    throw error
  }
}

/** Full parts, and what is left. */
async function* inParts(body: AsyncIterable<Uint8Array>, partBytes: number): AsyncGenerator<Uint8Array> {
  let chunks: Uint8Array[] = []
  let bytes = 0
  for await (let chunk of body) {
    while (bytes + chunk.length >= partBytes) {
      const rest = partBytes - bytes
      yield Buffer.concat([...chunks, chunk.subarray(0, rest)])
      chunk = chunk.subarray(rest)
      chunks = []
      bytes = 0
    }
    if (chunk.length > 0) chunks.push(chunk)
    bytes += chunk.length
  }
  if (bytes > 0) yield Buffer.concat(chunks)
}
