import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeEvaluation } from '../../services/evaluations/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { Evaluation, EvaluationParams } from './evaluation-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/evaluations/{id}',
  operationId: 'getEvaluation',
  tags: ['evaluations'],
  summary: 'How a model did on tasks',
  description: 'For whoever may see all that it is about: target, patch, data, and a base that the merge reads.',
  security: tokenOptional,
  request: { params: EvaluationParams },
  responses: { 200: jsonContent(Evaluation, 'Ready, or on its way.'), ...errorResponses(404) },
})

export function registerGetEvaluation(app: App): void {
  app.openapi(route, async (c) => c.json(await describeEvaluation({ ctx: c.var.ctx, input: c.req.valid('param') }), 200))
}
