import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeLineage } from '../../services/models/lineage.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { Ancestor } from './model-schema.ts'

const Lineage = z.object({ ancestors: z.array(Ancestor).openapi({ description: 'Nearest first.' }) }).openapi('ModelLineage')

const route = createRoute({
  method: 'get',
  path: '/v1/models/{org}/{name}/{version}/lineage',
  operationId: 'getModelLineage',
  tags: ['models'],
  summary: 'What a model version descends from',
  security: tokenOptional,
  request: { params: ModelVersionParams },
  responses: { 200: jsonContent(Lineage, 'Its ancestors.'), ...errorResponses(404) },
})

export function registerGetModelLineage(app: App): void {
  app.openapi(route, async (c) => {
    const ancestors = await describeLineage({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) })
    return c.json({ ancestors }, 200)
  })
}
