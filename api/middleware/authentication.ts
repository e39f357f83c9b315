import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import type { AppEnv } from '../app.ts'
import type { Dependencies } from '../context.ts'
import { ApiError } from '../errors.ts'
import { identifyPrincipal } from '../services/authorization/identify.ts'
import type { Principal } from '../services/authorization/principal.ts'

const ANONYMOUS: Principal = { kind: 'anonymous' }

/**
 * Sets `c.var.ctx`. Without credentials the request is anonymous; wrong credentials are always refused.
 * An attempt token of a runner is a JWT, not one of ours: its routes check it themselves, and it gives no other right.
 */
export function authentication(connect: (c: Context) => Dependencies | Promise<Dependencies>) {
  return createMiddleware<AppEnv>(async (c, next) => {
    const dependencies = await connect(c)
    const { requestId } = c.var
    // Set before anything can go wrong: the error handler logs by it.
    const ctx = { ...dependencies, requestId, log: dependencies.log.child({ requestId }), principal: ANONYMOUS }
    c.set('ctx', ctx)
    const header = c.req.header('authorization')
    if (header !== undefined && !isAttemptRoute(c.req.path)) c.set('ctx', { ...ctx, principal: await identifyPrincipal({ ctx, token: bearerToken(header) }) })
    await next()
  })
}

function isAttemptRoute(path: string): boolean {
  return path.startsWith('/v1/runner/jobs/')
}

/** The token of an `Authorization: Bearer …` header. Throws `unauthenticated` for any other scheme. */
export function bearerToken(header: string): string {
  const match = /^bearer +([\x21-\x7e]+) *$/i.exec(header)
  if (match === null) throw new ApiError('unauthenticated', 'The Authorization header is not "Bearer <token>". Send a token of this registry in that form.')
  return match[1]!
}

/** For routes that nobody may use anonymously: answers 401 before the input is even looked at. */
export const authenticated = createMiddleware<AppEnv>(async (c, next) => {
  if (c.var.ctx.principal.kind === 'anonymous') {
    throw new ApiError('unauthenticated', 'This needs a token. Send one as "Authorization: Bearer plm_…", or run "portllm login".')
  }
  await next()
})
