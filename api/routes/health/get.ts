import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { checkHealth } from '../../services/health/check.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'

const Health = z
  .object({ status: z.literal('ok'), version: z.string(), deployment: z.enum(['embedded', 'server', 'edge']) })
  .openapi('Health')

const route = createRoute({
  method: 'get',
  path: '/v1/health',
  operationId: 'getHealth',
  tags: ['registry'],
  summary: 'Whether the registry and its database answer',
  security: tokenOptional,
  responses: { 200: jsonContent(Health, 'They do.'), ...errorResponses(503) },
})

export function registerGetHealth(app: App): void {
  app.openapi(route, async (c) => c.json(await checkHealth({ ctx: c.var.ctx }), 200))
}
