import pLimit from 'p-limit'
import type { BlobStore } from '../../ports/blob-store.ts'

const AT_ONCE = 8

/** Makes staged objects blobs. Where one fails, it rejects once the others have ended: nothing runs on after the transaction. */
export async function promoteStaged(blobs: BlobStore, staged: readonly { key: string; sha256: string; size: number }[]): Promise<void> {
  const limit = pLimit(AT_ONCE)
  const outcomes = await Promise.allSettled(staged.map(({ key, sha256, size }) => limit(() => blobs.promote(key, { sha256, size }))))
  const failed = outcomes.find((outcome) => outcome.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}
