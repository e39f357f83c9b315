import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { mkdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CreateMultipartUploadCommand, DeleteObjectCommand, GetObjectCommand, PutObjectCommand, UploadPartCommand } from '@aws-sdk/client-s3'
import { blobKey, type BlobStore, type KeyPrefix } from '../../api/ports/blob-store.ts'
import { createS3Client, type S3Settings } from '../../api/ports/s3-client.ts'
import { sha256, type TestRegistry } from './harness.ts'

/** In /proc/net/tcp. */
const ESTABLISHED = '01'

/** What lies in the store of a registry, past the registry: a test harms it, plants in it, and looks. */
export interface StoredObjects {
  has(key: string): Promise<boolean>
  keys(prefix: KeyPrefix): Promise<string[]>
  get(key: string): Promise<Buffer>
  /** Returns its key: what is on its way into a bucket has another one. */
  put(key: string, bytes: Uint8Array | string): Promise<string>
  remove(key: string): Promise<void>
  /** How many times the registry has these open: as files, or as connections to the bucket, which has no more for others. */
  openReads(keys: readonly string[]): number
  /** Makes it seem last written so many days ago. */
  age(key: string, days: number): Promise<void>
}

export function storedObjects({ config, server }: TestRegistry): StoredObjects {
  const { blobs } = server.dependencies
  async function keys(prefix: KeyPrefix): Promise<string[]> {
    const found: string[] = []
    for await (const { key } of blobs.list(prefix)) found.push(key)
    return found.sort()
  }
  const has = async (key: string) => (await keys(key.split('/')[0] as KeyPrefix)).includes(key)
  return { keys, has, ...(config.s3 === undefined ? inFolder(config.data) : inBucket(config.s3, blobs)) }
}

function inFolder(folder: string): Omit<StoredObjects, 'has' | 'keys'> {
  return {
    get: (key) => readFile(join(folder, key)),
    async put(key, bytes) {
      await mkdir(dirname(join(folder, key)), { recursive: true })
      await writeFile(join(folder, key), bytes)
      return key
    },
    remove: (key) => rm(join(folder, key)),
    openReads: (keys) => openLinks().filter((link) => keys.some((key) => link.includes(key))).length,
    age: (key, days) => utimes(join(folder, key), daysAgo(days), daysAgo(days)),
  }
}

function inBucket(settings: S3Settings, blobs: BlobStore): Omit<StoredObjects, 'has' | 'keys'> {
  const client = createS3Client(settings)
  const Bucket = settings.bucket
  return {
    async get(Key) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }))
      return Buffer.from(await Body!.transformToByteArray())
    },
    async put(key, bytes) {
      if (!key.startsWith('incoming/')) {
        await client.send(new PutObjectCommand({ Bucket, Key: key, Body: bytes }))
        return key
      }
      const Key = blobKey(sha256(key))
      const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key }))
      await client.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber: 1, Body: bytes }))
      for await (const { key: known } of blobs.list('incoming')) if (known.includes(sha256(key))) return known
      throw new Error(`${Key} is not on its way in`)
    },
    async remove(Key) {
      await client.send(new DeleteObjectCommand({ Bucket, Key }))
    },
    openReads() {
      const port = Number(new URL(settings.endpoint!).port)
      const sockets = new Set(openLinks().flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []))
      const connections = readFileSync('/proc/self/net/tcp', 'utf8').trim().split('\n').slice(1).map((line) => line.trim().split(/\s+/))
      return connections.filter(([, , remote, state, , , , , , inode]) => state === ESTABLISHED && parseInt(remote!.split(':')[1]!, 16) === port && sockets.has(inode!)).length
    },
    /** The clock of a bucket cannot be set: its list is made to say so. */
    async age(aged, days) {
      const { list } = blobs
      const modifiedAt = daysAgo(days)
      blobs.list = async function* (prefix) {
        for await (const object of list(prefix)) yield object.key === aged ? { ...object, modifiedAt } : object
      }
    },
  }
}

function openLinks(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      return []
    }
  })
}

function daysAgo(days: number): Date {
  return new Date(Date.now() - days * 86_400_000)
}
