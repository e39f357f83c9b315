import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { markPatchVersion } from '../../services/patches/mark-version.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Patch } from './patch-schema.ts'

const Yank = z.strictObject({ reason: z.string().trim().min(1).max(1000) }).openapi('Yank')

const route = createRoute({
  method: 'put',
  path: '/v1/patches/{org}/{name}/{version}/yank',
  operationId: 'yankPatchVersion',
  tags: ['patches'],
  summary: 'Yank a version: ranges and tags no longer pick it, lockfiles still do',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: PatchVersionParams, body: jsonBody(Yank) },
  responses: { 200: jsonContent(Patch, 'The patch as it is now.'), ...errorResponses(403, 404, 409) },
})

export function registerYankPatchVersion(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), mark: { yank: c.req.valid('json').reason } }
    return c.json(await markPatchVersion({ ctx: c.var.ctx, input }), 200)
  })
}
