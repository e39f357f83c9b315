import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { listEvaluations } from '../../services/evaluations/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenOptional } from '../security.ts'
import { EvaluationSummary, How } from './evaluation-schema.ts'

const EvaluationPage = pageOf(EvaluationSummary).openapi('EvaluationPage')

const route = createRoute({
  method: 'get',
  path: '/v1/evaluations',
  operationId: 'listEvaluations',
  tags: ['evaluations'],
  summary: 'Evaluations, newest first',
  security: tokenOptional,
  request: {
    query: z.object({
      model: z.string().max(500).optional().openapi({ description: 'The target: `org/name`, or `org/name@version`.' }),
      patch: z.string().max(500).optional().openapi({ description: '`org/name`, or `org/name@version`.' }),
      task: z.string().max(200).optional().openapi({ description: 'A task that was asked for or scored.' }),
      how: How.optional(),
      ...PageQuery,
    }),
  },
  responses: { 200: jsonContent(EvaluationPage, 'One page.'), ...errorResponses(404) },
})

export function registerListEvaluations(app: App): void {
  app.openapi(route, async (c) => c.json(await listEvaluations({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
