import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import type { AppEnv } from '../app.ts'

const YEAR_SECONDS = 31_536_000

/**
 * Of an answer that never changes under its address. A cache that many share may keep it where everybody may see it and
 * no credentials came with the request; nothing on the way may change the bytes, which are those of an ETag or a digest.
 */
export function immutable(c: Context<AppEnv>, isPublic: boolean): string {
  return `${sharing(c, isPublic)}, max-age=${YEAR_SECONDS}, immutable, no-transform`
}

/** `public` or `private`, to begin a Cache-Control with. */
export function sharing(c: Context<AppEnv>, isPublic: boolean): string {
  return isPublic && !isAuthorized(c) ? 'public' : 'private'
}

/** Where a route says nothing of caching: errors and what changed something are kept by nobody, anything else not without asking again. */
export function caching() {
  return createMiddleware<AppEnv>(async (c, next) => {
    await next()
    const { status, headers } = c.res
    const isKeepable = status < 400 && (c.req.method === 'GET' || c.req.method === 'HEAD')
    if (!isKeepable) c.header('Cache-Control', isAuthorized(c) ? 'private, no-store' : 'no-store')
    else if (headers.get('content-type')?.startsWith('text/event-stream')) c.header('Cache-Control', 'private, no-store')
    else if (!headers.has('cache-control')) c.header('Cache-Control', isAuthorized(c) ? 'private, no-cache' : 'no-cache')
  })
}

function isAuthorized(c: Context<AppEnv>): boolean {
  return c.req.header('authorization') !== undefined
}
