import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { markPatchVersion } from '../../services/patches/mark-version.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Patch } from './patch-schema.ts'


const route = createRoute({
  method: 'delete',
  path: '/v1/patches/{org}/{name}/{version}/yank',
  operationId: 'unyankPatchVersion',
  tags: ['patches'],
  summary: 'Take a yank back',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: PatchVersionParams },
  responses: { 200: jsonContent(Patch, 'The patch as it is now.'), ...errorResponses(403, 404, 409) },
})

export function registerUnyankPatchVersion(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), mark: { yank: null } }
    return c.json(await markPatchVersion({ ctx: c.var.ctx, input }), 200)
  })
}
