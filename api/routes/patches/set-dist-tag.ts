import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { setDistTag } from '../../services/patches/set-dist-tag.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { DistTags } from './patch-schema.ts'

const SetDistTag = z.strictObject({ version: z.string() }).openapi('SetDistTag')

const route = createRoute({
  method: 'put',
  path: '/v1/patches/{org}/{name}/dist-tags/{tag}',
  operationId: 'setDistTag',
  tags: ['patches'],
  summary: 'Point a dist-tag at a published version',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: FamilyParams.extend({ tag: z.string() }), body: jsonBody(SetDistTag) },
  responses: { 200: jsonContent(DistTags, 'All dist-tags as they are now.'), ...errorResponses(403, 404) },
})

export function registerSetDistTag(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    return c.json(await setDistTag({ ctx: c.var.ctx, input }), 200)
  })
}
