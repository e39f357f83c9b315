import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import type { AppEnv } from '../../app.ts'
import { bearerToken } from '../../middleware/authentication.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { authorizeAttempt } from '../../services/runner/attempt.ts'

/** The attempt whose token came with the request, if it is one of this job. */
export function readAttempt(c: Context<AppEnv>, jobId: string): Promise<Attempt> {
  const header = c.req.header('authorization')
  return authorizeAttempt({ ctx: c.var.ctx, token: header === undefined ? null : bearerToken(header), jobId })
}

/** Refuses a report without the right token before its body, which may be large, is even read. */
export const attemptAuthenticated = createMiddleware<AppEnv>(async (c, next) => {
  await readAttempt(c, c.req.param('id')!)
  await next()
})
