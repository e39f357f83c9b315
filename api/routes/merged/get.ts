import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { requestMerge } from '../../services/derivations/request-merge.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { ModelVersionParams } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'
import { answerMerged } from './answer.ts'
import { AskedStorage, DerivationOptions, Merged, PatchReferences, Pending } from './merged-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/models/{org}/{name}/{version}/merged',
  operationId: 'getMerged',
  tags: ['merging'],
  summary: 'A model version with patches merged into it',
  description: 'Anybody who may see every input may fetch what exists already; starting a merge needs a token. `Prefer: wait=N` waits up to N seconds (at most 60).',
  security: tokenOptional,
  request: { params: ModelVersionParams, query: z.object({ patch: PatchReferences, storage: AskedStorage, ...DerivationOptions.shape }) },
  responses: { 200: jsonContent(Merged, 'It exists.'), 202: jsonContent(Pending, 'A job makes it; `Location` names the job.'), ...errorResponses(403, 404, 409, 410, 422, 502, 503) },
})

export function registerGetMerged(app: App): void {
  app.openapi(route, async (c) => {
    const { org, name, version } = c.req.valid('param')
    const { patch, storage, ...options } = c.req.valid('query')
    const id = await requestMerge({ ctx: c.var.ctx, input: { target: `${org}/${name}@${version}`, patches: patch, options, storage } })
    return answerMerged(c, id)
  })
}
