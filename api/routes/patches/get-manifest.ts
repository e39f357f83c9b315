import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { immutable } from '../../middleware/caching.ts'
import { readPatchManifest } from '../../services/patches/read-manifest.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { PatchManifest } from '../models/model-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/patches/{org}/{name}/{version}/manifest',
  operationId: 'getPatchManifest',
  tags: ['patches'],
  summary: 'Files and tensors of a published version',
  description: 'It never changes.',
  security: tokenOptional,
  request: { params: PatchVersionParams },
  responses: { 200: jsonContent(PatchManifest, 'The manifest.'), ...errorResponses(404) },
})

export function registerGetPatchManifest(app: App): void {
  app.openapi(route, async (c) => {
    const { manifest, isPublic } = await readPatchManifest({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) })
    c.header('Cache-Control', immutable(c, isPublic))
    return c.json(manifest, 200)
  })
}
