import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { planFiles } from '../../services/files/plan.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { Plan, PLAN_CACHE, PLAN_DESCRIPTION } from './plan-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/patches/{org}/{name}/{version}/plan',
  operationId: 'getPatchPlan',
  tags: ['patches'],
  summary: 'The files of a published patch version as signed requests',
  description: PLAN_DESCRIPTION,
  security: tokenOptional,
  request: { params: PatchVersionParams },
  responses: { 200: jsonContent(Plan, 'Every file, by path.'), ...errorResponses(404, 409) },
})

export function registerGetPatchPlan(app: App): void {
  app.openapi(route, async (c) => {
    const subject = { kind: 'patch' as const, ...toNames(c.req.valid('param')) }
    return c.json(await planFiles({ ctx: c.var.ctx, input: { subject } }), 200, PLAN_CACHE)
  })
}
