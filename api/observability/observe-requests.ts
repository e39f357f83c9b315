import type { HttpBindings } from '@hono/node-server'
import type { Context, MiddlewareHandler } from 'hono'
import { matchedRoutes } from 'hono/route'
import type { AppEnv } from '../app.ts'
import type { Log } from '../ports/log.ts'

/** One request, after the last byte of its answer has been handed over or the client has left. */
export interface FinishedRequest {
  readonly method: string
  /** The pattern of its route, such as `/v1/models/:org/:name`; `unmatched` where there is none. */
  readonly route: string
  readonly status: number
  readonly seconds: number
  /** Of the answer, its head included. */
  readonly bytes: number
  /** The answer did not go out whole. */
  readonly isCut: boolean
}

export type RequestObserver = (request: FinishedRequest, c: Context<AppEnv>) => void

/** Others are not told apart: whoever sends requests must not decide how many time series there are. */
const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** Tells of every request when it has ended. Node only: answers are partly written past Hono, so it is the socket that knows. */
export function observeRequests(observers: readonly RequestObserver[]): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const started = performance.now()
    const { incoming, outgoing } = c.env as unknown as HttpBindings
    const { socket } = incoming
    const sentBefore = socket.bytesWritten
    outgoing.once('close', () => {
      const request: FinishedRequest = {
        method: METHODS.has(incoming.method ?? '') ? incoming.method! : 'OTHER',
        route: routeOf(c),
        status: outgoing.statusCode,
        seconds: (performance.now() - started) / 1000,
        bytes: socket.bytesWritten - sentBefore,
        isCut: !outgoing.writableFinished,
      }
      for (const observe of observers) observe(request, c)
    })
    await next()
  }
}

/** Middleware is registered for all methods; only a route has one. */
export function routeOf(c: Context): string {
  return matchedRoutes(c).findLast(({ method }) => method !== 'ALL')?.path ?? 'unmatched'
}

/** One line for each request: who, what, how it went; neither its query nor its headers, where secrets are. */
export function logRequests(log: Log): RequestObserver {
  return ({ method, route, status, seconds, bytes, isCut }, c) => {
    const principal = c.var.ctx?.principal
    const tokenId = principal?.kind === 'user' ? principal.tokenId : null
    log.info({ requestId: c.var.requestId, method, route, path: c.req.path, status, milliseconds: Math.round(seconds * 1e6) / 1e3, bytes, tokenId, ...(isCut && { isCut }) }, 'Request')
  }
}
