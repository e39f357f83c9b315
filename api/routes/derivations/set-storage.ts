import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { setStorage } from '../../services/derivations/set-storage.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { answerMerged } from '../merged/answer.ts'
import { Merged, Pending, Storage } from '../merged/merged-schema.ts'
import { tokenRequired } from '../security.ts'
import { DerivationParams } from './get.ts'

const route = createRoute({
  method: 'put',
  path: '/v1/derivations/{id}/storage',
  operationId: 'setDerivationStorage',
  tags: ['merging'],
  summary: 'Keep the changed tensors of a merged model, or compute them when they are fetched',
  description:
    'For who may publish to the organization of its target. `computed` takes effect at once, and frees the space; `materialised` needs a job, during which it stays computed. ' +
    'The bytes do not change: a job that gives others fails. `Prefer: wait=N` waits up to N seconds (at most 60).',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: DerivationParams, body: jsonBody(z.strictObject({ storage: Storage }).openapi('StorageRequest')) },
  responses: { 200: jsonContent(Merged, 'It is so.'), 202: jsonContent(Pending, 'A job does it; `Location` names the job.'), ...errorResponses(403, 404, 409, 502, 503) },
})

export function registerSetDerivationStorage(app: App): void {
  app.openapi(route, async (c) => {
    const { id } = c.req.valid('param')
    const { storage } = c.req.valid('json')
    await setStorage({ ctx: c.var.ctx, input: { id, storage } })
    return answerMerged(c, id, storage)
  })
}
