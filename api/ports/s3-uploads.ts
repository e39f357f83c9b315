import {
  AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CreateMultipartUploadCommand, ListMultipartUploadsCommand, ListPartsCommand, UploadPartCopyCommand,
  type CompletedPart, type MultipartUpload, type S3Client,
} from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import type { StagedPart, StoredObject } from './blob-store.ts'
import { isMissing, OBJECT_TYPE } from './s3-client.ts'

const COPIES_AT_ONCE = 4

export interface ArrivedPart extends StagedPart {
  readonly etag: string
  readonly modifiedAt: Date
}

/** Objects that are sent or copied in parts, in one bucket. */
export interface S3Uploads {
  /** The upload of this object, or undefined where there is none. */
  find(key: string): Promise<string | undefined>
  findOrBegin(key: string): Promise<string>
  parts(key: string, uploadId: string): Promise<ArrivedPart[]>
  complete(key: string, uploadId: string, parts: readonly CompletedPart[]): Promise<void>
  /** Every upload of an object whose key begins so. */
  list(prefix: string): AsyncGenerator<MultipartUpload, void, undefined>
  /** As an object of the parts that have arrived. */
  describe(upload: MultipartUpload): Promise<StoredObject>
  abort(upload: MultipartUpload): Promise<void>
  /** Copies an object within the bucket in parts of `partBytes`, if it is still the one of this ETag. */
  copy(from: { key: string; etag: string; size: number }, to: string, partBytes: number): Promise<void>
}

/**
 * The id of an upload is nowhere written down: the store lists it by the object's key, so nothing is lost by a restart and
 * no second record can disagree. Where two processes begin one at the same time, all take the same of the two from then on.
 */
export function openS3Uploads(client: S3Client, Bucket: string): S3Uploads {
  async function* list(Prefix: string): AsyncGenerator<MultipartUpload, void, undefined> {
    let after: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } = {}
    for (let more = true; more; ) {
      const page = await client.send(new ListMultipartUploadsCommand({ Bucket, Prefix, ...after }))
      yield* page.Uploads ?? []
      after = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
      more = page.IsTruncated === true
    }
  }

  async function find(key: string): Promise<string | undefined> {
    let first: MultipartUpload | undefined
    for await (const upload of list(key)) if (upload.Key === key && (first === undefined || isBefore(upload, first))) first = upload
    return first?.UploadId
  }

  async function begin(key: string): Promise<string> {
    const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key: key, ContentType: OBJECT_TYPE }))
    return UploadId!
  }

  async function listParts(Key: string, UploadId: string): Promise<ArrivedPart[]> {
    const parts: ArrivedPart[] = []
    // Not by the SDK's paginator, which asks Ceph for the page after the last again and again.
    for (let after: string | undefined, more = true; more; ) {
      const page = await client.send(new ListPartsCommand({ Bucket, Key, UploadId, ...(after !== undefined && { PartNumberMarker: after }) }))
      for (const { PartNumber, Size, ETag, LastModified } of page.Parts ?? []) parts.push({ number: PartNumber!, size: Size!, etag: ETag!, modifiedAt: LastModified! })
      after = page.NextPartNumberMarker
      more = page.IsTruncated === true
    }
    return parts
  }

  async function complete(key: string, UploadId: string, parts: readonly CompletedPart[]): Promise<void> {
    await client.send(new CompleteMultipartUploadCommand({ Bucket, Key: key, UploadId, MultipartUpload: { Parts: [...parts] } }))
  }

  async function abort({ Key, UploadId }: MultipartUpload): Promise<void> {
    await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId })).catch((error: unknown) => {
      if (!isMissing(error)) throw error
    })
  }

  return {
    find,
    list,
    abort,
    complete,
    async findOrBegin(key) {
      const found = await find(key)
      if (found !== undefined) return found
      const begun = await begin(key)
      return (await find(key)) ?? begun
    },
    parts: listParts,
    async describe({ Key, UploadId, Initiated }) {
      const parts = await listParts(Key!, UploadId!).catch((error: unknown) => (isMissing(error) ? [] : Promise.reject(error)))
      const modified = Math.max(Initiated!.getTime(), ...parts.map(({ modifiedAt }) => modifiedAt.getTime()))
      return { key: Key!, size: parts.reduce((sum, { size }) => sum + size, 0), modifiedAt: new Date(modified) }
    },
    async copy({ key, etag, size }, to, partBytes) {
      const UploadId = await begin(to)
      const source = { CopySource: `${Bucket}/${key}`, CopySourceIfMatch: etag }
      const limit = pLimit(COPIES_AT_ONCE)
      const copyPart = async (_: unknown, index: number): Promise<CompletedPart> => {
        const [start, end] = [index * partBytes, Math.min((index + 1) * partBytes, size)]
        const { CopyPartResult } = await client.send(new UploadPartCopyCommand({ Bucket, Key: to, UploadId, PartNumber: index + 1, ...source, CopySourceRange: `bytes=${start}-${end - 1}` }))
        return { PartNumber: index + 1, ETag: CopyPartResult!.ETag }
      }
      try {
        const parts = await limit.map(Array.from({ length: Math.ceil(size / partBytes) }), copyPart)
        await complete(to, UploadId, parts)
      } catch (error) {
        limit.clearQueue()
        await abort({ Key: to, UploadId })
        throw error
      }
    },
  }
}

function isBefore(a: MultipartUpload, b: MultipartUpload): boolean {
  const [at, bt] = [a.Initiated!.getTime(), b.Initiated!.getTime()]
  return at === bt ? a.UploadId! < b.UploadId! : at < bt
}
