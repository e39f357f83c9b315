import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'

const BLOCK_BYTES = 1 << 20

/** SHA-256 of the bytes from `start` to `end` (exclusive) of a file, as 64 hex digits; one block in memory. */
export async function hashRange(absolute: string, start: number, end: number, signal: AbortSignal, onBytes?: (count: number) => void): Promise<string> {
  const file = await open(absolute, 'r')
  try {
    const hash = createHash('sha256')
    const block = Buffer.allocUnsafe(Math.max(1, Math.min(BLOCK_BYTES, end - start)))
    for (let at = start; at < end; ) {
      signal.throwIfAborted()
      const { bytesRead } = await file.read(block, 0, Math.min(block.length, end - at), at)
      if (bytesRead === 0) throw new Error(`${absolute} ends at byte ${at}, before byte ${end}`)
      hash.update(block.subarray(0, bytesRead))
      at += bytesRead
      onBytes?.(bytesRead)
    }
    return hash.digest('hex')
  } finally {
    await file.close()
  }
}
