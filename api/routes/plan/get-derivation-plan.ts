import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { planFiles } from '../../services/files/plan.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { Plan, PLAN_CACHE, PLAN_DESCRIPTION } from './plan-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/derivations/{id}/plan',
  operationId: 'getDerivationPlan',
  tags: ['derivations'],
  summary: 'The files of a merged model as signed requests',
  description: PLAN_DESCRIPTION,
  security: tokenOptional,
  request: { params: z.object({ id: z.string() }) },
  responses: { 200: jsonContent(Plan, 'Every file, by path.'), ...errorResponses(404, 409, 503) },
})

export function registerGetDerivationPlan(app: App): void {
  app.openapi(route, async (c) => {
    const subject = { kind: 'derivation' as const, id: c.req.valid('param').id }
    return c.json(await planFiles({ ctx: c.var.ctx, input: { subject } }), 200, PLAN_CACHE)
  })
}
