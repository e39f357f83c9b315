import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeModel } from '../../services/models/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { Model } from './model-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/models/{org}/{name}',
  operationId: 'getModel',
  tags: ['models'],
  summary: 'One model with its versions',
  security: tokenOptional,
  request: { params: FamilyParams },
  responses: { 200: jsonContent(Model, 'The model.'), ...errorResponses(404) },
})

export function registerGetModel(app: App): void {
  app.openapi(route, async (c) => c.json(await describeModel({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
