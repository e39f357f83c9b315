import type { Context } from 'hono'
import type { App, AppEnv } from '../app.ts'
import { errorAnswer } from './error-handler.ts'

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** 405 with `Allow` where the path exists for another method, 404 elsewhere; both as JSON. */
export function answerUnmatched(app: App, c: Context<AppEnv>): Response {
  const allowed = METHODS.filter((method) => hasRoute(app, method, c.req.path))
  if (allowed.length === 0) {
    return errorAnswer(c, 'not_found', `There is nothing at ${c.req.method} ${c.req.path}. The routes of this registry are listed at /docs.`, 404)
  }
  c.header('Allow', allowed.join(', '))
  return errorAnswer(c, 'method_not_allowed', `${c.req.path} takes ${allowed.join(', ')}, not ${c.req.method}.`, 405)
}

function hasRoute(app: App, method: string, path: string): boolean {
  // Middleware is registered for ALL methods; only a route of the method itself counts.
  return app.router.match(method, path)[0].some(([[, route]]) => route.method === method)
}
