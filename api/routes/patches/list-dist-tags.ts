import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describePatch } from '../../services/patches/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { DistTags } from './patch-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/patches/{org}/{name}/dist-tags',
  operationId: 'listDistTags',
  tags: ['patches'],
  summary: 'Dist-tags and the versions they point at',
  security: tokenOptional,
  request: { params: FamilyParams },
  responses: { 200: jsonContent(DistTags, 'Versions by tag.'), ...errorResponses(404) },
})

export function registerListDistTags(app: App): void {
  app.openapi(route, async (c) => {
    const { distTags } = await describePatch({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) })
    return c.json(distTags, 200)
  })
}
