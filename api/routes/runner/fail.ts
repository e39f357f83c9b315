import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { failAttempt } from '../../services/runner/fail-job.ts'
import { errorResponses, jsonBody } from '../error-responses.ts'
import { attemptAuthenticated, readAttempt } from './read-attempt.ts'
import { AttemptParams, attemptToken } from './runner-schema.ts'

const Failure = z.object({ code: z.string().min(1).max(100), message: z.string().min(1).max(4000), retryable: z.boolean() }).openapi('FailRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/runner/jobs/{id}/fail',
  operationId: 'failJob',
  tags: ['runners'],
  summary: 'This attempt did not work out',
  security: attemptToken,
  middleware: [attemptAuthenticated] as const,
  request: { params: AttemptParams, body: jsonBody(Failure) },
  responses: { 204: { description: 'Noted.' }, ...errorResponses(403, 409) },
})

export function registerFailJob(app: App): void {
  app.openapi(route, async (c) => {
    const attempt = await readAttempt(c, c.req.valid('param').id)
    await failAttempt({ ctx: c.var.ctx, attempt, failure: c.req.valid('json') })
    return c.body(null, 204)
  })
}
