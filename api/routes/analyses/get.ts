import { createRoute, type z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeAnalysis } from '../../services/analyses/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { Analysis, AnalysisParams } from './analysis-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/analyses/{id}',
  operationId: 'getAnalysis',
  tags: ['analyses'],
  summary: 'What was measured of a patch on a target',
  description: 'For whoever may see patch, base and target.',
  security: tokenOptional,
  request: { params: AnalysisParams },
  responses: { 200: jsonContent(Analysis, 'Ready, or on its way.'), ...errorResponses(404) },
})

export function registerGetAnalysis(app: App): void {
  app.openapi(route, async (c) => c.json((await describeAnalysis({ ctx: c.var.ctx, input: c.req.valid('param') })) as z.infer<typeof Analysis>, 200))
}
