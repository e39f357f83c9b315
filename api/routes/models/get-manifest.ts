import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { immutable } from '../../middleware/caching.ts'
import { readModelManifest } from '../../services/models/read-manifest.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { ModelManifest } from '../models/model-schema.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/models/{org}/{name}/{version}/manifest',
  operationId: 'getModelManifest',
  tags: ['models'],
  summary: 'Files and tensors of a published version',
  description: 'It never changes.',
  security: tokenOptional,
  request: { params: ModelVersionParams },
  responses: { 200: jsonContent(ModelManifest, 'The manifest.'), ...errorResponses(404) },
})

export function registerGetModelManifest(app: App): void {
  app.openapi(route, async (c) => {
    const { manifest, isPublic } = await readModelManifest({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) })
    c.header('Cache-Control', immutable(c, isPublic))
    return c.json(manifest, 200)
  })
}
