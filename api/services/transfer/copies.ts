import pRetry from 'p-retry'
import { TransferError } from './format.ts'

/** Blobs that are copied by now. */
export interface TransferProgress {
  readonly phase: 'blobs'
  readonly count: number
  readonly bytes: number
}

/** Copies at once: enough for a store that answers slowly. */
const CONCURRENCY = 4

/** One copy again, where the way to the store breaks off; what is known to be wrong stays so. */
export function persistently<T>(copy: () => Promise<T>): Promise<T> {
  return pRetry(copy, { retries: 3, minTimeout: 200, shouldRetry: ({ error }) => !(error instanceof TransferError) && !('code' in error && error.code === 'ENOENT') })
}

/** Runs `work` for every item, a few at a time; no more items are read than can be worked on. The first failure ends it. */
export async function forEachOf<T>(items: AsyncIterable<T>, work: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.asyncIterator]()
  let ended = false
  const turn = async () => {
    try {
      while (!ended) {
        const { value, done } = await iterator.next()
        if (done) break
        await work(value)
      }
    } finally {
      ended = true
    }
  }
  const turns = await Promise.allSettled(Array.from({ length: CONCURRENCY }, turn))
  await iterator.return?.()
  for (const settled of turns) if (settled.status === 'rejected') throw settled.reason
}
