import { createHash } from 'node:crypto'
import pRetry from 'p-retry'
import { BlobMissingError, blobKey, type BlobStore } from '../../ports/blob-store.ts'

/** `unreadable`: the store has it, and does not give it out; the message says why. */
export type BlobProblem = 'missing' | 'short' | 'long' | 'corrupt' | 'unreadable'

export interface BlobDamage {
  readonly problem: BlobProblem
  readonly message: string
}

/** Reads a blob and compares it with its key and with the size in the database. Null: it is whole. `onBytes` may hold the reading up. */
export async function checkBlob(blobs: BlobStore, { sha256, size }: { sha256: string; size: number }, onBytes: (count: number) => Promise<void> | void): Promise<BlobDamage | null> {
  const key = blobKey(sha256)
  const found = await blobs.size(key)
  if (found === null) return { problem: 'missing', message: `The store has no object ${key}.` }
  if (found !== size) return { problem: found < size ? 'short' : 'long', message: `${key} has ${found} bytes, not ${size}.` }
  const read = async () => {
    const hash = createHash('sha256')
    if (size > 0) {
      for await (const chunk of await blobs.read(key, { offset: 0, length: size }, { reuse: true })) {
        hash.update(chunk)
        await onBytes(chunk.length)
      }
    }
    return hash.digest('hex')
  }
  let digest: string
  try {
    // The way to a store breaks off at times, which is no damage.
    digest = await pRetry(read, { retries: 3, minTimeout: 200, shouldRetry: ({ error }) => !(error instanceof BlobMissingError) && error.name !== 'AbortError' })
  } catch (error) {
    if (error instanceof BlobMissingError) return { problem: 'missing', message: `The store has no object ${key}.` }
    if ((error as Error).name === 'AbortError') throw error
    return { problem: 'unreadable', message: `${key} cannot be read: ${(error as Error).message}` }
  }
  return digest === sha256 ? null : { problem: 'corrupt', message: `The bytes of ${key} have the SHA-256 ${digest}.` }
}
