import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { requestOutputs } from '../../services/runner/request-outputs.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { NewFiles, UploadPart } from '../uploads/upload-schema.ts'
import { attemptAuthenticated, readAttempt } from './read-attempt.ts'
import { AttemptParams, attemptToken } from './runner-schema.ts'

const Outputs = z.object({ files: z.array(z.object({ path: z.string(), parts: z.array(UploadPart) })) }).openapi('OutputPlan')

const route = createRoute({
  method: 'post',
  path: '/v1/runner/jobs/{id}/outputs',
  operationId: 'requestOutputs',
  tags: ['runners'],
  summary: 'Where to PUT the files that the attempt has made',
  description: 'For jobs whose outputs are known only when they are there. The completion then names the same files.',
  security: attemptToken,
  middleware: [attemptAuthenticated] as const,
  request: { params: AttemptParams, body: jsonBody(z.object({ files: NewFiles }).openapi('OutputRequest')) },
  responses: { 200: jsonContent(Outputs, 'Signed PUTs, in the order of the files.'), ...errorResponses(403, 409) },
})

export function registerRequestOutputs(app: App): void {
  app.openapi(route, async (c) => {
    const attempt = await readAttempt(c, c.req.valid('param').id)
    return c.json(await requestOutputs({ ctx: c.var.ctx, attempt, files: c.req.valid('json').files }), 200)
  })
}
