import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { reportProgress } from '../../services/runner/report-progress.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { attemptAuthenticated, readAttempt } from './read-attempt.ts'
import { AttemptParams, attemptToken, Progress } from './runner-schema.ts'

const route = createRoute({
  method: 'post',
  path: '/v1/runner/jobs/{id}/heartbeat',
  operationId: 'reportProgress',
  tags: ['runners'],
  summary: 'Still at it: extends the lease',
  security: attemptToken,
  middleware: [attemptAuthenticated] as const,
  request: { params: AttemptParams, body: jsonBody(z.object({ progress: Progress.nullable() })) },
  responses: { 200: jsonContent(z.object({ cancel: z.boolean() }), 'Go on, or stop.'), ...errorResponses(403, 409) },
})

export function registerReportProgress(app: App): void {
  app.openapi(route, async (c) => {
    const attempt = await readAttempt(c, c.req.valid('param').id)
    return c.json(await reportProgress({ ctx: c.var.ctx, attempt, progress: c.req.valid('json').progress }), 200)
  })
}
