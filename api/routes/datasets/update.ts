import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { updateDataset } from '../../services/datasets/update.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenRequired } from '../security.ts'
import { FamilyUpdate } from '../uploads/upload-schema.ts'
import { Dataset } from './dataset-schema.ts'

const route = createRoute({
  method: 'patch',
  path: '/v1/datasets/{org}/{name}',
  operationId: 'updateDataset',
  tags: ['datasets'],
  summary: 'Change description or visibility of a dataset',
  description: 'For admins of its organization.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: FamilyParams, body: jsonBody(FamilyUpdate) },
  responses: { 200: jsonContent(Dataset, 'As it is now.'), ...errorResponses(403, 404) },
})

export function registerUpdateDataset(app: App): void {
  app.openapi(route, async (c) => {
    const input = { ...toNames(c.req.valid('param')), ...c.req.valid('json') }
    return c.json(await updateDataset({ ctx: c.var.ctx, input }), 200)
  })
}
