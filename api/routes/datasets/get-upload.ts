import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { describeDatasetUpload } from '../../services/datasets/upload.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Upload } from '../uploads/upload-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/datasets/{org}/{name}/{version}/upload',
  operationId: 'getDatasetUpload',
  tags: ['datasets'],
  summary: 'What of an upload has arrived, with fresh URLs for the rest',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: ModelVersionParams },
  responses: { 200: jsonContent(Upload, 'The upload.'), ...errorResponses(403, 404) },
})

export function registerGetDatasetUpload(app: App): void {
  app.openapi(route, async (c) => c.json(await describeDatasetUpload({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) }), 200))
}
