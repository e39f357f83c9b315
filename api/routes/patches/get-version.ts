import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describePatchVersion } from '../../services/patches/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { PatchVersion } from './patch-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/patches/{org}/{name}/{version}',
  operationId: 'getPatchVersion',
  tags: ['patches'],
  summary: 'One version of a patch',
  description: 'Before it is published, only its organization sees it.',
  security: tokenOptional,
  request: { params: PatchVersionParams },
  responses: { 200: jsonContent(PatchVersion, 'The version.'), ...errorResponses(404) },
})

export function registerGetPatchVersion(app: App): void {
  app.openapi(route, async (c) => c.json(await describePatchVersion({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
