import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { updateModel } from '../../services/models/update.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { FamilyUpdate } from '../uploads/upload-schema.ts'
import { Model } from './model-schema.ts'


const route = createRoute({
  method: 'patch',
  path: '/v1/models/{org}/{name}',
  operationId: 'updateModel',
  tags: ['models'],
  summary: 'Change description or visibility of a model',
  description: 'For admins of its organization.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: FamilyParams, body: jsonBody(FamilyUpdate) },
  responses: { 200: jsonContent(Model, 'As it is now.'), ...errorResponses(403, 404) },
})

export function registerUpdateModel(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    return c.json(await updateModel({ ctx: c.var.ctx, input }), 200)
  })
}
