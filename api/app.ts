import { OpenAPIHono } from '@hono/zod-openapi'
import type { Context, MiddlewareHandler } from 'hono'
import type { Dependencies, RequestContext } from './context.ts'
import { authentication } from './middleware/authentication.ts'
import { jsonBodyLimit, MAX_CLIENT_JSON_BYTES, MAX_RUNNER_JSON_BYTES } from './middleware/body-limit.ts'
import { handleError } from './middleware/error-handler.ts'
import { answerUnmatched } from './middleware/not-found.ts'
import { caching } from './middleware/caching.ts'
import { requestId } from './middleware/request-id.ts'
import { answerInvalid, refuseUnkeepableUrl } from './middleware/validation.ts'
import { registerApiReference } from './pages/api-reference.ts'
import { registerPages } from './pages/routes.ts'
import { registerRoutes } from './routes/routes.ts'

export interface AppEnv {
  Variables: { ctx: RequestContext; requestId: string }
}

export type App = OpenAPIHono<AppEnv>

/**
 * Composition only: middleware, then every route. `connect` gives the deployment's dependencies for a request; `outermost`
 * is the deployment's own middleware, which sees each request whole.
 */
export function createApp(connect: (c: Context) => Dependencies | Promise<Dependencies>, outermost: readonly MiddlewareHandler<AppEnv>[] = []): App {
  const app: App = new OpenAPIHono<AppEnv>({ defaultHook: answerInvalid })
  app.onError(handleError)
  app.notFound((c) => answerUnmatched(app, c))
  for (const middleware of outermost) app.use(middleware)
  app.use(requestId())
  app.use(caching())
  app.use(refuseUnkeepableUrl())
  app.use(authentication(connect))
  app.use('/v1/runner/*', jsonBodyLimit(MAX_RUNNER_JSON_BYTES))
  app.use('/v1/:resource{(?!runner).+}', jsonBodyLimit(MAX_CLIENT_JSON_BYTES))
  registerRoutes(app)
  registerPages(app)
  registerApiReference(app)
  return app
}
