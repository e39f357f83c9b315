import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { listDatasets } from '../../services/datasets/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenOptional } from '../security.ts'
import { DatasetListItem } from './dataset-schema.ts'

const DatasetPage = pageOf(DatasetListItem).openapi('DatasetPage')

const route = createRoute({
  method: 'get',
  path: '/v1/datasets',
  operationId: 'listDatasets',
  tags: ['datasets'],
  summary: 'Datasets, by name',
  security: tokenOptional,
  request: {
    query: z.object({
      q: z.string().max(200).optional().openapi({ description: 'Words that must all be in name or description.' }),
      organization: z.string().optional(),
      ...PageQuery,
    }),
  },
  responses: { 200: jsonContent(DatasetPage, 'One page.'), ...errorResponses() },
})

export function registerListDatasets(app: App): void {
  app.openapi(route, async (c) => c.json(await listDatasets({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
