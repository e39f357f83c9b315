import { request as requestHttp, type IncomingMessage } from 'node:http'
import { request as requestHttps } from 'node:https'
import { pipeline } from 'node:stream/promises'

/** Longest text of an answer that is kept: it is a message, not content. */
const ANSWER_BYTES = 64 << 10

/**
 * Sends a body of known length with backpressure. node:http rather than fetch, which takes a streamed body
 * into memory as fast as it comes (measured: 4 parts of 64 MiB at once cost 340 MB).
 */
export async function putStream(url: string, options: { method: string; headers: Record<string, string>; signal: AbortSignal }, body: AsyncIterable<Uint8Array>): Promise<{ status: number; text: string }> {
  const request = (url.startsWith('https:') ? requestHttps : requestHttp)(url, options)
  const answered = new Promise<IncomingMessage>((resolve, reject) => request.once('response', resolve).once('error', reject))
  // A store that refuses early answers and closes: its answer says more than the broken pipe.
  const sent = pipeline(body, request).catch((error: Error) => error)
  const response = await Promise.race([answered, sent.then((error) => (error instanceof Error ? Promise.race([answered, delayed(error)]) : answered))])
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) if (text.length < ANSWER_BYTES) text += chunk
  return { status: response.statusCode!, text }
}

function delayed(error: Error): Promise<never> {
  return new Promise((_, reject) => setTimeout(() => reject(error), 200))
}
