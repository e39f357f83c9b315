import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeDerivation } from '../../services/derivations/describe.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { toMerged } from '../merged/answer.ts'
import { Merged } from '../merged/merged-schema.ts'
import { tokenOptional } from '../security.ts'

export const DerivationParams = z.object({ id: z.string().regex(/^[0-9a-f]{64}$/).openapi({ description: 'SHA-256 of the recipe.' }) })

const route = createRoute({
  method: 'get',
  path: '/v1/derivations/{id}',
  operationId: 'getDerivation',
  tags: ['merging'],
  summary: 'A merged model by the id of its recipe',
  security: tokenOptional,
  request: { params: DerivationParams },
  responses: { 200: jsonContent(Merged, 'Ready, or on its way.'), ...errorResponses(404) },
})

export function registerGetDerivation(app: App): void {
  app.openapi(route, async (c) => c.json(toMerged(await describeDerivation({ ctx: c.var.ctx, input: c.req.valid('param') })), 200))
}
