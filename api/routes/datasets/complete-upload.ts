import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { completeDatasetUpload } from '../../services/datasets/upload.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { CompleteBody, Upload } from '../uploads/upload-schema.ts'

const route = createRoute({
  method: 'post',
  path: '/v1/datasets/{org}/{name}/{version}/complete',
  operationId: 'completeDatasetUpload',
  tags: ['datasets'],
  summary: 'All files are there: verify and publish',
  description: 'Starts the ingest job. Idempotent: also resumes a completion that was interrupted.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: ModelVersionParams, body: { content: { 'application/json': { schema: CompleteBody } }, required: false } },
  responses: { 202: jsonContent(Upload, 'The upload with its job.'), ...errorResponses(403, 404, 409, 422) },
})

export function registerCompleteDatasetUpload(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    const upload = await completeDatasetUpload({ ctx: c.var.ctx, input })
    if (upload.job !== null) c.header('Location', `/v1/jobs/${upload.job.id}`)
    return c.json(upload, 202)
  })
}
