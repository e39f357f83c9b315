import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { findAttemptFile } from '../../services/runner/find-attempt-file.ts'
import { errorResponses } from '../error-responses.ts'
import { answerFile } from '../files/answer-file.ts'
import { attemptAuthenticated, readAttempt } from './read-attempt.ts'
import { AttemptParams, attemptToken } from './runner-schema.ts'

const bytesContent = { 'application/octet-stream': { schema: z.string().openapi({ format: 'binary' }) } }

/** GET of a file whose bytes the registry computes: what is stored a runner gets from the blob store. */
export function registerGetAttemptFile(app: App): void {
  app.openAPIRegistry.registerPath(createRoute({
    method: 'get',
    path: '/v1/runner/jobs/{id}/files/{path}',
    operationId: 'getAttemptFile',
    tags: ['runners'],
    summary: 'A file of the merged model that the attempt works on',
    description: 'The claim names these requests, with their ranges, for bytes that the registry computes.',
    security: attemptToken,
    request: { params: AttemptParams.extend({ path: z.string() }), headers: z.object({ Range: z.string().optional() }) },
    responses: {
      200: { description: 'The whole file.', content: bytesContent },
      206: { description: 'The range.', content: bytesContent },
      304: { description: 'If-None-Match names the ETag.' },
      ...errorResponses(403, 404, 409, 412, 416, 503),
    },
  }))
  // The route's own notation has no parameter that may hold "/".
  app.get('/v1/runner/jobs/:id/files/:path{.+}', attemptAuthenticated, async (c) => {
    const attempt = await readAttempt(c, c.req.param('id')!)
    return answerFile(c, await findAttemptFile({ ctx: c.var.ctx, attempt, path: c.req.param('path')! }))
  })
}
