import { freeBuffer } from '../../gpu-runner/free-buffer.ts'

/** What is read from a file at once, to be sent. */
export const BLOCK_BYTES = 512 * 1024
/** Blocks that wait to be used again; the memory of those beyond is given back. */
const MAX_FREE = 16
const free: Buffer<ArrayBuffer>[] = []

/**
 * Memory for `BLOCK_BYTES`, used again and again: with a fresh buffer for each read, V8 lets 100 MB and more of them
 * pile up between collections, and the system hands out and clears their pages each time.
 */
export function takeBlock(): Buffer<ArrayBuffer> {
  return free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES)
}

/** Only for a block that nothing reads any more. */
export function returnBlock(block: Buffer<ArrayBuffer>): void {
  if (free.length < MAX_FREE) free.push(block)
  else freeBuffer(block)
}
