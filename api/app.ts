import { OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import type { Dependencies, RequestContext } from './context.ts'

export interface AppEnv {
  Variables: { ctx: RequestContext }
}

export type App = OpenAPIHono<AppEnv>

/** Composition only: middleware, then every route. `connect` gives the deployment's dependencies for a request. */
export function createApp(connect: (c: Context) => Dependencies): App {
  const app: App = new OpenAPIHono<AppEnv>()
  void connect
  return app
}
