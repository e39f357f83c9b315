import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeDataset } from '../../services/datasets/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { Dataset } from './dataset-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/datasets/{org}/{name}',
  operationId: 'getDataset',
  tags: ['datasets'],
  summary: 'One dataset with its versions',
  security: tokenOptional,
  request: { params: FamilyParams },
  responses: { 200: jsonContent(Dataset, 'The dataset.'), ...errorResponses(404) },
})

export function registerGetDataset(app: App): void {
  app.openapi(route, async (c) => c.json(await describeDataset({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
