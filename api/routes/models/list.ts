import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { listModels } from '../../services/models/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenOptional } from '../security.ts'
import { ModelListItem } from './model-schema.ts'

const ModelPage = pageOf(ModelListItem).openapi('ModelPage')

const route = createRoute({
  method: 'get',
  path: '/v1/models',
  operationId: 'listModels',
  tags: ['models'],
  summary: 'Models, by name',
  security: tokenOptional,
  request: {
    query: z.object({
      q: z.string().max(200).optional().openapi({ description: 'Words that must all be in name or description.' }),
      organization: z.string().optional(),
      ...PageQuery,
    }),
  },
  responses: { 200: jsonContent(ModelPage, 'One page.'), ...errorResponses() },
})

export function registerListModels(app: App): void {
  app.openapi(route, async (c) => c.json(await listModels({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
