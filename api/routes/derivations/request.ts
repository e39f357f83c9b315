import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { MAX_PATCHES } from '../../../patch/derivation.ts'
import { requestDerivation } from '../../services/derivations/request-merge.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { answerMerged } from '../merged/answer.ts'
import { AskedStorage, DerivationOptions, Merged, Pending } from '../merged/merged-schema.ts'
import { Digest } from '../runner/runner-schema.ts'
import { tokenRequired } from '../security.ts'

const DerivationRequest = z
  .strictObject({ target: Digest, patches: z.array(z.strictObject({ digest: Digest, weight: z.number().default(1) })).min(1).max(MAX_PATCHES), options: DerivationOptions.default({}), storage: AskedStorage })
  .openapi('DerivationRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/derivations',
  operationId: 'requestDerivation',
  tags: ['merging'],
  summary: 'A merged model by exact digests, as a lockfile has them',
  description: 'Works for versions that were yanked since. `Prefer: wait=N` waits up to N seconds (at most 60).',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(DerivationRequest) },
  responses: { 200: jsonContent(Merged, 'It exists.'), 202: jsonContent(Pending, 'A job makes it; `Location` names the job.'), ...errorResponses(403, 404, 422, 502, 503) },
})

export function registerRequestDerivation(app: App): void {
  app.openapi(route, async (c) => answerMerged(c, await requestDerivation({ ctx: c.var.ctx, input: c.req.valid('json') })))
}
