import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { countStreamed } from './garbage-collector.ts'
import { JobFailure } from './job-failure.ts'
import type { SignedRequest } from './protocol.ts'
import { beginRequest, isTransientStatus, pauseBefore, refusedByStore, responseOf, storeUnreachable } from './signed-request.ts'

/** Failures in a row, without a byte between them, before a download is given up. */
const MAX_FAILURES = 5

/** The object is not of the size that was announced. */
export class SizeMismatchError extends Error {
  readonly expected: number
  readonly found: number

  constructor(expected: number, found: number) {
    super(`the stored object gives ${found} bytes where ${expected} are expected`)
    this.name = 'SizeMismatchError'
    this.expected = expected
    this.found = found
  }
}

class TransientStatusError extends Error {}

/**
 * The `length` bytes of a signed GET, in order, in the pieces in which they arrive. A stream that is cut goes on where
 * it stopped. Throws SizeMismatchError, JobFailure, and the signal's reason.
 */
export async function* download(source: SignedRequest, length: number, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  let at = 0
  let failures = 0
  for (;;) {
    try {
      const { response, skip } = await open(source, at, length, signal)
      let toSkip = skip
      for await (const chunk of response as AsyncIterable<Buffer>) {
        const fresh = toSkip === 0 ? chunk : chunk.subarray(toSkip)
        toSkip -= chunk.byteLength - fresh.byteLength
        if (fresh.byteLength === 0) continue
        at += fresh.byteLength
        failures = 0
        yield fresh
        countStreamed(chunk.byteLength)
      }
      if (at === length) return
      throw new Error(`the stream ended after ${at} of ${length} bytes`)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof JobFailure || error instanceof SizeMismatchError) throw error
      if (++failures >= MAX_FAILURES) throw storeUnreachable('download', error)
      await sleep(pauseBefore(failures), undefined, { signal })
    }
  }
}

/** The whole of a signed GET in one buffer of its own. */
export async function downloadBytes(source: SignedRequest, length: number, signal: AbortSignal): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length)
  let at = 0
  for await (const chunk of download(source, length, signal)) {
    chunk.copy(bytes, at)
    at += chunk.byteLength
  }
  return bytes
}

/** Asks for the bytes from `at` on; `skip` of those that come are known already. */
async function open(source: SignedRequest, at: number, length: number, signal: AbortSignal): Promise<{ response: IncomingMessage; skip: number }> {
  // The signature may cover the Range header, so a request that has one is repeated as it is.
  const isRanged = Object.keys(source.headers).some((name) => name.toLowerCase() === 'range')
  const resumes = at > 0 && !isRanged
  const request = beginRequest(resumes ? { ...source, headers: { ...source.headers, range: `bytes=${at}-` } } : source, signal)
  request.end()
  const response = await responseOf(request)
  const status = response.statusCode ?? 0
  if (status !== 200 && status !== 206) {
    response.destroy()
    if (isTransientStatus(status)) throw new TransientStatusError(`the blob store answered ${status}`)
    throw refusedByStore('download', status)
  }
  const startsAt = resumes && status === 206 ? at : 0
  const found = Number(response.headers['content-length'] ?? Number.NaN)
  if (found !== length - startsAt) {
    response.destroy()
    throw new SizeMismatchError(length, startsAt + found)
  }
  if (resumes && status === 206 && !response.headers['content-range']?.startsWith(`bytes ${at}-`)) {
    response.destroy()
    throw new TransientStatusError('the blob store answered with another range than the one asked for')
  }
  return { response, skip: at - startsAt }
}
