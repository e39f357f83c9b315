import type { FileExtent } from '../../../patch/extent.ts'

/** Extents opened ahead of the one that is being sent: hides the latency of the store. */
const MAX_AHEAD = 4
/** What an open extent may hold in memory before it is asked for: one chunk of the store. */
const CHUNK_BYTES = 1024 * 1024
/** Times that an extent is opened again, with not a byte between, where its bytes stop coming. */
const MAX_REOPENS = 3
/** Bound of what is held ahead, per request. */
const MAX_AHEAD_BYTES = 2 * CHUNK_BYTES

interface Opened { readonly extent: FileExtent; readonly stream: Promise<ReadableStream<Uint8Array>> }

/** Opens the bytes of one extent. */
export type OpenExtent = (extent: FileExtent, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>

/** The bytes of extents as one stream, by what suits the platform. */
export type StreamExtents = (asked: { open: OpenExtent; extents: readonly FileExtent[]; what: string }) => Promise<ReadableStream<Uint8Array>>

/**
 * The bytes of the extents, in order, at the pace of the reader. Rejects where the first extent does not open; a later
 * one that does not, or is short, errors the stream, so that an answer is never silently short. An extent whose bytes stop
 * coming is opened again where they did: a store closes what nobody reads for a minute, and readers may be slow.
 * Cancelling the stream cancels the reads below it. `what` names the bytes in errors.
 */
export async function streamExtents({ open, extents, what }: { open: OpenExtent; extents: readonly FileExtent[]; what: string }): Promise<ReadableStream<Uint8Array>> {
  const abort = new AbortController()
  const waiting = extents.filter((extent) => extent.length > 0)
  const ahead: Opened[] = []
  let next = 0
  let current: { extent: FileExtent; reader: ReadableStreamDefaultReader<Uint8Array>; left: number; failures: number } | null = null

  function openAhead(): void {
    let held = ahead.reduce((sum, { extent }) => sum + Math.min(extent.length, CHUNK_BYTES), 0)
    while (next < waiting.length && ahead.length < MAX_AHEAD && held < MAX_AHEAD_BYTES) {
      const extent = waiting[next++]!
      const stream = open(extent, abort.signal)
      // Its turn to be awaited may come late, or never: a rejection must not count as unhandled until then.
      stream.catch(() => {})
      ahead.push({ extent, stream })
      held += Math.min(extent.length, CHUNK_BYTES)
    }
  }

  /** Makes the next extent the current one, if there is one left. */
  async function advance(): Promise<void> {
    openAhead()
    const opened = ahead.shift()
    current = opened === undefined ? null : { extent: opened.extent, reader: (await opened.stream).getReader(), left: opened.extent.length, failures: 0 }
    openAhead()
  }

  /** The next chunk, or null after the last extent. */
  async function nextChunk(): Promise<Uint8Array | null> {
    while (current !== null) {
      const value = await readOrReopen(current)
      if (value !== null) {
        current.left -= value.length
        current.failures = 0
        if (current.left < 0) throw new Error(`the blob store sent more than was asked of ${nameOf(current.extent)}`)
        if (value.length > 0) return value
      } else {
        if (current.left > 0) throw new Error(`${nameOf(current.extent)} ends ${current.left} bytes early`)
        await advance()
      }
    }
    return null
  }

  async function readOrReopen(from: NonNullable<typeof current>): Promise<Uint8Array | null> {
    for (;;) {
      try {
        const { done, value } = await from.reader.read()
        return done ? null : value
      } catch (error) {
        if (abort.signal.aborted || from.failures++ >= MAX_REOPENS) throw error
        const { extent, left } = from
        from.reader = (await open({ ...extent, offset: extent.offset + extent.length - left, length: left }, abort.signal)).getReader()
      }
    }
  }

  async function release(reason: unknown): Promise<void> {
    abort.abort(reason)
    const streams = ahead.splice(0).map(({ stream }) => stream.then((opened) => opened.cancel(reason)))
    await Promise.allSettled([current?.reader.cancel(reason), ...streams])
  }

  try {
    await advance()
  } catch (error) {
    await release(error)
    throw error
  }
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const chunk = await nextChunk()
          if (chunk === null) controller.close()
          else controller.enqueue(chunk)
        } catch (error) {
          await release(error)
          // The answer has begun: this only reaches the log.
          throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
        }
      },
      cancel: release,
    },
    { highWaterMark: 0 },
  )
}

/** For errors. */
export function nameOf(extent: FileExtent): string {
  return 'tensor' in extent ? `the changed tensor ${extent.tensor}` : `blob ${extent.blob}`
}
