import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { markPatchVersion } from '../../services/patches/mark-version.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Patch } from './patch-schema.ts'

const Deprecation = z.strictObject({ message: z.string().trim().min(1).max(1000) }).openapi('Deprecation')

const route = createRoute({
  method: 'put',
  path: '/v1/patches/{org}/{name}/{version}/deprecation',
  operationId: 'deprecatePatchVersion',
  tags: ['patches'],
  summary: 'Deprecate a version: those who use it are told',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: PatchVersionParams, body: jsonBody(Deprecation) },
  responses: { 200: jsonContent(Patch, 'The patch as it is now.'), ...errorResponses(403, 404, 409) },
})

export function registerDeprecatePatchVersion(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), mark: { deprecation: c.req.valid('json').message } }
    return c.json(await markPatchVersion({ ctx: c.var.ctx, input }), 200)
  })
}
