import type { FileHandle } from 'node:fs/promises'
import { BLOCK_BYTES, returnBlock, takeBlock } from './block-pool.ts'
import type { ByteRange } from './blob-store.ts'
import { countStreamed } from '../../gpu-runner/garbage-collector.ts'

interface Block { readonly memory: Buffer<ArrayBuffer>; readonly bytes: Buffer }

/**
 * A range of a file, block by block; while one is on its way, the next is read. Closes the handle at the end, on
 * cancelling, and when `signal` is aborted. With `reuse`, a block's memory is written again once the next is asked for.
 */
export function readRange(handle: FileHandle, range: ByteRange, { signal, reuse = false }: { signal?: AbortSignal; reuse?: boolean }): ReadableStream<Uint8Array> {
  let position = range.offset
  const end = range.offset + range.length
  let sent: Block | null = null
  let ahead: Promise<Block> | null = null
  const onAbort = () => void handle.close().catch(() => {})
  signal?.addEventListener('abort', onAbort, { once: true })

  async function readBlock(): Promise<Block> {
    const length = Math.min(BLOCK_BYTES, end - position)
    const memory = reuse ? takeBlock() : Buffer.allocUnsafeSlow(length)
    if (!reuse) countStreamed(length)
    const { bytesRead } = await handle.read(memory, 0, length, position)
    if (bytesRead === 0) throw new Error(`the stored object ends at byte ${position}, before ${end}`)
    position += bytesRead
    return { memory, bytes: memory.subarray(0, bytesRead) }
  }

  function giveBack({ memory }: Block): void {
    if (reuse) returnBlock(memory)
  }

  async function finish(): Promise<void> {
    signal?.removeEventListener('abort', onAbort)
    await ahead?.then(giveBack, () => {})
    ahead = null
    await handle.close().catch(() => {})
  }

  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        if (sent !== null) giveBack(sent)
        sent = null
        if (ahead === null && position >= end) {
          await finish()
          return controller.close()
        }
        const block = await (ahead ?? readBlock())
        ahead = position < end ? readBlock() : null
        // Whoever awaits it next hears of a failure; until then it is not unhandled.
        ahead?.catch(() => {})
        sent = block
        controller.enqueue(block.bytes)
      } catch (error) {
        await finish()
        throw signal?.aborted ? signal.reason : error
      }
    },
    // What was handed out last may still be on its way: its memory is left to the garbage collector.
    cancel: finish,
  }, { highWaterMark: 0 })
}
