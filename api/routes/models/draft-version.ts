import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { draftModelVersion, PARENT_KINDS } from '../../services/models/draft-version.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { ModelVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Description, NewFiles, Upload, Visibility } from '../uploads/upload-schema.ts'

const NewModelVersion = z
  .strictObject({
    files: NewFiles,
    parent: z.strictObject({ reference: z.string().openapi({ example: 'mercy-hospital/base@v1' }), kind: z.enum(PARENT_KINDS) }).optional(),
    description: Description.optional().openapi({ description: 'Of the model, where this is its first version.' }),
    visibility: Visibility.optional().openapi({ description: 'Of the model, where this is its first version; `public` by default.' }),
  })
  .openapi('NewModelVersion')

const route = createRoute({
  method: 'put',
  path: '/v1/models/{org}/{name}/{version}',
  operationId: 'draftModelVersion',
  tags: ['models'],
  summary: 'Begin to publish a model version, or resume it',
  description: 'The answer says where to PUT each file. The same files again resume a draft; other files replace it. A published version never changes.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: ModelVersionParams, body: jsonBody(NewModelVersion) },
  responses: {
    200: jsonContent(Upload, 'The draft was there already.'),
    201: jsonContent(Upload, 'A new draft.'),
    ...errorResponses(403, 404, 409),
  },
})

export function registerDraftModelVersion(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    const { created, upload } = await draftModelVersion({ ctx: c.var.ctx, input })
    return created ? c.json(upload, 201) : c.json(upload, 200)
  })
}
