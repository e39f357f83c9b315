import { coalesce, totalLength } from '../../../patch/layout.ts'
import type { Log } from '../../ports/log.ts'
import { nameOf, type StreamExtents } from './stream-extents.ts'

/** Extents opened ahead of the one that is being sent. With it and the database they stay below the 6 connections of a Worker. */
const MAX_AHEAD = 2

/**
 * `streamExtents` for workerd: one pipe after the other from the store to the client, so that no byte passes through
 * JavaScript, whose time a Worker pays for. The length is fixed: an answer that would be short, or long, is cut off.
 */
export function pipeExtents(log: Log): StreamExtents {
  return async ({ open, extents, what }) => {
    const abort = new AbortController()
    // Each is a subrequest, of which a Worker has only so many.
    const waiting = coalesce(extents)
    const opened: Promise<ReadableStream<Uint8Array>>[] = []
    const { readable, writable } = new FixedLengthStream(totalLength(waiting))

    function openUpTo(index: number): void {
      while (opened.length <= index && opened.length < waiting.length) {
        const stream = open(waiting[opened.length]!, abort.signal)
        // Its turn to be awaited may come late, or never: a rejection must not count as unhandled until then.
        stream.catch(() => {})
        opened.push(stream)
      }
    }

    async function pipeAll(): Promise<void> {
      for (const [index, extent] of waiting.entries()) {
        openUpTo(index + MAX_AHEAD)
        const stream = await opened[index]!
        await stream.pipeTo(writable, { preventClose: true, preventAbort: true }).catch((cause: unknown) => {
          throw new Error(`${nameOf(extent)} was not sent whole`, { cause })
        })
      }
      await writable.close()
    }

    async function release(reason: unknown): Promise<void> {
      abort.abort(reason)
      await Promise.allSettled([writable.abort(reason), ...opened.map(async (stream) => (await stream).cancel(reason))])
    }

    openUpTo(0)
    try {
      await opened[0]
    } catch (error) {
      await release(error)
      throw error
    }
    pipeAll().catch(async (err: unknown) => {
      await release(err)
      log.error({ err }, `An answer was cut off: ${what}`)
    })
    return readable
  }
}
