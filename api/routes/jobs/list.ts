import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { listJobs } from '../../services/jobs/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenOptional } from '../security.ts'
import { Job } from './job-schema.ts'

const JobPage = pageOf(Job).openapi('JobPage')

const route = createRoute({
  method: 'get',
  path: '/v1/jobs',
  operationId: 'listJobs',
  tags: ['jobs'],
  summary: 'Jobs of your organizations, and those you asked for, newest first',
  security: tokenOptional,
  request: { query: z.object({ ...PageQuery, state: Job.shape.state.optional(), kind: Job.shape.kind.optional() }) },
  responses: { 200: jsonContent(JobPage, 'One page.'), ...errorResponses() },
})

export function registerListJobs(app: App): void {
  app.openapi(route, async (c) => c.json(await listJobs({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
