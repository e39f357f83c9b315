import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeModelVersion } from '../../services/models/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { ModelVersion } from './model-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/models/{org}/{name}/{version}',
  operationId: 'getModelVersion',
  tags: ['models'],
  summary: 'One version of a model',
  description: 'Before it is published, only its organization sees it.',
  security: tokenOptional,
  request: { params: ModelVersionParams },
  responses: { 200: jsonContent(ModelVersion, 'The version.'), ...errorResponses(404) },
})

export function registerGetModelVersion(app: App): void {
  app.openapi(route, async (c) => c.json(await describeModelVersion({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
