import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { listPatches } from '../../services/patches/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenOptional } from '../security.ts'
import { PatchListItem } from './patch-schema.ts'

const PatchPage = pageOf(PatchListItem).openapi('PatchPage')

const route = createRoute({
  method: 'get',
  path: '/v1/patches',
  operationId: 'listPatches',
  tags: ['patches'],
  summary: 'Patches, by name',
  security: tokenOptional,
  request: {
    query: z.object({
      q: z.string().max(200).optional().openapi({ description: 'Words that must all be in name or description.' }),
      organization: z.string().optional(),
      base: z.string().optional().openapi({ description: 'Only patches trained on a version of this model, as org/name.' }),
      ...PageQuery,
    }),
  },
  responses: { 200: jsonContent(PatchPage, 'One page.'), ...errorResponses(404) },
})

export function registerListPatches(app: App): void {
  app.openapi(route, async (c) => c.json(await listPatches({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
