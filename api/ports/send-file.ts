import type { FileHandle } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { BLOCK_BYTES, returnBlock, takeBlock } from './block-pool.ts'

/** Sends a range of a file with backpressure, reading the next block while the last is on its way. */
export async function sendFile(handle: FileHandle, range: { offset: number; length: number }, response: ServerResponse): Promise<void> {
  const end = range.offset + range.length
  let sending: Promise<void> = Promise.resolve()
  for (let position = range.offset; position < end; ) {
    const block = takeBlock()
    const { bytesRead } = await handle.read(block, 0, Math.min(BLOCK_BYTES, end - position), position)
    if (bytesRead === 0) throw new Error(`the stored object ends at byte ${position}, before ${end}`)
    position += bytesRead
    await sending
    sending = write(response, block.subarray(0, bytesRead)).then(() => returnBlock(block))
    // Whoever awaits it next hears of a failure; until then it is not unhandled.
    sending.catch(() => {})
  }
  await sending
}

/** Resolves when the socket has taken the bytes over, so that their block may be overwritten. */
export function write(response: ServerResponse, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    if (response.destroyed) return reject(new Error('the client went away'))
    const onClose = () => reject(new Error('the client went away'))
    response.once('close', onClose)
    response.write(bytes, (error) => {
      response.off('close', onClose)
      if (error) reject(error)
      else resolve()
    })
  })
}
