import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { draftDatasetVersion } from '../../services/datasets/draft-version.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Description, NewFiles, Upload, Visibility } from '../uploads/upload-schema.ts'

const NewDatasetVersion = z
  .strictObject({
    files: NewFiles,
    description: Description.optional().openapi({ description: 'Of the dataset, where this is its first version.' }),
    visibility: Visibility.optional().openapi({ description: 'Of the dataset, where this is its first version; `public` by default.' }),
  })
  .openapi('NewDatasetVersion')

const route = createRoute({
  method: 'put',
  path: '/v1/datasets/{org}/{name}/{version}',
  operationId: 'draftDatasetVersion',
  tags: ['datasets'],
  summary: 'Begin to publish a dataset version, or resume it',
  description: 'The files are `<split>.jsonl`, `.json`, `.csv` or `.parquet`, or those of several datasets in a folder each. The answer says where to PUT each. The same files again resume a draft; other files replace it. A published version never changes.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: ModelVersionParams, body: jsonBody(NewDatasetVersion) },
  responses: {
    200: jsonContent(Upload, 'The draft was there already.'),
    201: jsonContent(Upload, 'A new draft.'),
    ...errorResponses(403, 404, 409),
  },
})

export function registerDraftDatasetVersion(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    const { created, upload } = await draftDatasetVersion({ ctx: c.var.ctx, input })
    return created ? c.json(upload, 201) : c.json(upload, 200)
  })
}
