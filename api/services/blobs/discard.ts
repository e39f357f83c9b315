import pLimit from 'p-limit'
import type { BlobStore } from '../../ports/blob-store.ts'

const AT_ONCE = 16

/** Discards staged objects, or folders of them: each costs a store at the other end of a network several requests. */
export async function discardStaged(blobs: BlobStore, keys: readonly string[]): Promise<void> {
  await pLimit(AT_ONCE).map(keys, (key) => blobs.discard(key))
}
