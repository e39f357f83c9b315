import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describePatch } from '../../services/patches/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { Patch } from './patch-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/patches/{org}/{name}',
  operationId: 'getPatch',
  tags: ['patches'],
  summary: 'One patch with its versions',
  security: tokenOptional,
  request: { params: FamilyParams },
  responses: { 200: jsonContent(Patch, 'The patch.'), ...errorResponses(404) },
})

export function registerGetPatch(app: App): void {
  app.openapi(route, async (c) => c.json(await describePatch({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
