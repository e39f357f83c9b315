import type { ServerResponse } from 'node:http'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Log } from './log.ts'
import { write } from './send-file.ts'

/**
 * Sends a stream, and asks for a chunk only when the socket has taken over the one before. A failure cuts the answer off,
 * which has begun, and goes to the log; a client that leaves cancels the stream.
 */
export async function sendStream(stream: ReadableStream<Uint8Array>, response: ServerResponse, log: Log): Promise<void> {
  const reader = stream.getReader()
  const onClose = () => void reader.cancel(new Error('the client went away')).catch(() => {})
  response.once('close', onClose)
  let isReading = true
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      isReading = false
      await write(response, next.value)
      isReading = true
    }
    if (!response.destroyed) response.end()
  } catch (error) {
    if (isReading && !response.destroyed) log.error({ err: error }, 'An answer was cut off')
    response.destroy(error as Error)
    await reader.cancel(error).catch(() => {})
  } finally {
    response.off('close', onClose)
  }
}

/**
 * Tells node-server to write nothing. A response of our own for each request, since middleware adds headers to it;
 * and one whose body was looked at, because only then does node-server 2.1 look for the mark.
 */
export function alreadySent(): Response {
  const response = new Response(null, { headers: RESPONSE_ALREADY_SENT.headers })
  void response.body
  return response
}
