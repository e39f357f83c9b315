import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { findJob } from '../../services/jobs/find.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { Job } from './job-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/jobs/{id}',
  operationId: 'getJob',
  tags: ['jobs'],
  summary: 'A job',
  security: tokenOptional,
  request: { params: z.object({ id: z.uuid() }) },
  responses: { 200: jsonContent(Job, 'As it is now.'), ...errorResponses(404) },
})

export function registerGetJob(app: App): void {
  app.openapi(route, async (c) => c.json(await findJob({ ctx: c.var.ctx, input: c.req.valid('param') }), 200))
}
