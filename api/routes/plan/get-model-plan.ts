import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { planFiles } from '../../services/files/plan.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { Plan, PLAN_CACHE, PLAN_DESCRIPTION } from './plan-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/models/{org}/{name}/{version}/plan',
  operationId: 'getModelPlan',
  tags: ['models'],
  summary: 'The files of a published model version as signed requests',
  description: PLAN_DESCRIPTION,
  security: tokenOptional,
  request: { params: ModelVersionParams },
  responses: { 200: jsonContent(Plan, 'Every file, by path.'), ...errorResponses(404, 409) },
})

export function registerGetModelPlan(app: App): void {
  app.openapi(route, async (c) => {
    const subject = { kind: 'model' as const, ...toNames(c.req.valid('param')) }
    return c.json(await planFiles({ ctx: c.var.ctx, input: { subject } }), 200, PLAN_CACHE)
  })
}
