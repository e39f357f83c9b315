import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { removeDistTag } from '../../services/patches/remove-dist-tag.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { DistTags } from './patch-schema.ts'


const route = createRoute({
  method: 'delete',
  path: '/v1/patches/{org}/{name}/dist-tags/{tag}',
  operationId: 'removeDistTag',
  tags: ['patches'],
  summary: 'Remove a dist-tag',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: FamilyParams.extend({ tag: z.string() }) },
  responses: { 200: jsonContent(DistTags, 'All dist-tags as they are now.'), ...errorResponses(403, 404, 409) },
})

export function registerRemoveDistTag(app: App): void {
  app.openapi(route, async (c) => c.json(await removeDistTag({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
