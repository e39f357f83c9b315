import { createMiddleware } from 'hono/factory'
import type { AppEnv } from '../app.ts'

/** Gives each request an id, in its answer, its errors and its audit rows. A caller's own id is not taken over: it could be made to lie. */
export function requestId() {
  return createMiddleware<AppEnv>(async (c, next) => {
    const id = crypto.randomUUID()
    c.set('requestId', id)
    await next()
    c.header('X-Request-Id', id)
  })
}
