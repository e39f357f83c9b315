import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import type { ModelManifest as Manifest } from '../../../patch/manifest.ts'
import { ApiError } from '../../errors.ts'
import { immutable } from '../../middleware/caching.ts'
import { findVisibleDerivation } from '../../services/derivations/find-visible.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelManifest } from '../runner/runner-schema.ts'
import type { Mutable } from '../mutable.ts'
import { tokenOptional } from '../security.ts'
import { DerivationParams } from './get.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/derivations/{id}/manifest',
  operationId: 'getDerivationManifest',
  tags: ['merging'],
  summary: 'Every tensor of a merged model',
  security: tokenOptional,
  request: { params: DerivationParams },
  responses: { 200: jsonContent(ModelManifest, 'The manifest.'), ...errorResponses(404, 409) },
})

export function registerGetDerivationManifest(app: App): void {
  app.openapi(route, async (c) => {
    const row = await findVisibleDerivation({ ctx: c.var.ctx, id: c.req.valid('param').id })
    if (row.manifest === null) throw new ApiError('wrong_state', 'The merge has not run yet: there is no manifest. Watch its job, then ask again.')
    c.header('Cache-Control', immutable(c, row.visibility === 'public'))
    return c.json(row.manifest as Mutable<Manifest>, 200)
  })
}
