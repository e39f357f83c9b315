import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeDatasetVersion } from '../../services/datasets/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { DatasetVersion } from './dataset-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/datasets/{org}/{name}/{version}',
  operationId: 'getDatasetVersion',
  tags: ['datasets'],
  summary: 'One version of a dataset',
  description: 'Before it is published, only its organization sees it.',
  security: tokenOptional,
  request: { params: ModelVersionParams },
  responses: { 200: jsonContent(DatasetVersion, 'The version.'), ...errorResponses(404) },
})

export function registerGetDatasetVersion(app: App): void {
  app.openapi(route, async (c) => c.json(await describeDatasetVersion({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
