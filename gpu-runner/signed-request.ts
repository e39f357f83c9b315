import { Agent as HttpAgent, request as requestHttp, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import { JobFailure } from './job-failure.ts'
import type { SignedRequest } from './protocol.ts'

/** A connection on which nothing moves for this long is given up. */
const STALL_MILLISECONDS = 60_000

const agents = { 'http:': new HttpAgent({ keepAlive: true }), 'https:': new HttpsAgent({ keepAlive: true }) }

/**
 * Begins a signed request; the caller ends it. Redirects are not followed: a signed URL has none.
 * node:http rather than fetch, whose request bodies cost twice the time and tell nobody when a buffer was sent.
 */
export function beginRequest({ method, url, headers }: SignedRequest, signal: AbortSignal): ClientRequest {
  const target = new URL(url)
  const options = { method, headers, signal, timeout: STALL_MILLISECONDS }
  const request = target.protocol === 'https:'
    ? requestHttps(target, { ...options, agent: agents['https:'] })
    : requestHttp(target, { ...options, agent: agents['http:'] })
  request.on('timeout', () => request.destroy(new Error(`nothing moved for ${STALL_MILLISECONDS / 1000} s`)))
  return request
}

/** The response's head, once it is there. */
export function responseOf(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.on('response', resolve)
    request.on('error', reject)
    request.on('close', () => reject(new Error('the connection was closed without an answer')))
  })
}

/** A status that another try may change. */
export function isTransientStatus(status: number): boolean {
  return status >= 500 || status === 408 || status === 425 || status === 429
}

/** The failure for a store that refused; its URL is a credential and is not named. */
export function refusedByStore(what: string, status: number): JobFailure {
  return new JobFailure('storage_refused', `The blob store answered ${status} to the ${what}. A new attempt gets new URLs.`, true)
}

export function storeUnreachable(what: string, error: unknown): JobFailure {
  return new JobFailure('storage_unreachable', `The ${what} failed again and again: ${error instanceof Error ? error.message : String(error)}.`, true)
}

/** Milliseconds before the next try, growing, with chance in it so that many runners do not come back together. */
export function pauseBefore(failures: number): number {
  return Math.min(200 * 2 ** (failures - 1), 10_000) * (0.5 + Math.random() / 2)
}
