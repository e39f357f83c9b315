import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { draftPatchVersion } from '../../services/patches/draft-version.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { PatchVersionParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { Description, NewFiles, Upload, Visibility } from '../uploads/upload-schema.ts'

const NewPatchVersion = z
  .strictObject({
    files: NewFiles,
    base: z.string().openapi({ example: 'mercy-hospital/base@v1', description: 'The model version that the patch was trained on.' }),
    targetRange: z.string().max(200).optional().openapi({ description: 'Model versions that it is meant for, as a semver range.' }),
    tag: z.string().optional().openapi({ description: 'The dist-tag to move here, instead of `latest`.' }),
    description: Description.optional().openapi({ description: 'Of the patch, where this is its first version.' }),
    visibility: Visibility.optional().openapi({ description: 'Of the patch, where this is its first version; `public` by default.' }),
  })
  .openapi('NewPatchVersion')

const route = createRoute({
  method: 'put',
  path: '/v1/patches/{org}/{name}/{version}',
  operationId: 'draftPatchVersion',
  tags: ['patches'],
  summary: 'Begin to publish a patch version, or resume it',
  description: 'The answer says where to PUT each file. The same files again resume a draft; other files replace it. A published version never changes.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: PatchVersionParams, body: jsonBody(NewPatchVersion) },
  responses: {
    200: jsonContent(Upload, 'The draft was there already.'),
    201: jsonContent(Upload, 'A new draft.'),
    ...errorResponses(403, 404, 409),
  },
})

export function registerDraftPatchVersion(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    const { created, upload } = await draftPatchVersion({ ctx: c.var.ctx, input })
    return created ? c.json(upload, 201) : c.json(upload, 200)
  })
}
