import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { JOB_KINDS } from '../../ports/job-queue.ts'
import { claimJob } from '../../services/runner/claim-job.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { tokenRequired } from '../security.ts'
import { Claim } from './runner-schema.ts'

const ClaimRequest = z
  .object({
    kinds: z.array(z.enum(JOB_KINDS)).min(1),
    waitSeconds: z.number().min(0).max(30).default(0),
    runner: z.object({ name: z.string().min(1).max(200), engine: z.string().max(200).optional() }),
  })
  .openapi('ClaimRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/runner/claim',
  operationId: 'claimJob',
  tags: ['runners'],
  summary: 'The next job, waiting for one if need be',
  description: 'For tokens with the scope `runner`. The answer carries a token for this one attempt, signed GETs for exactly its inputs and signed PUTs for its outputs.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(ClaimRequest) },
  responses: { 200: jsonContent(Claim, 'A job that is yours until its lease ends.'), 204: { description: 'There is none.' }, ...errorResponses(403) },
})

export function registerClaimJob(app: App): void {
  app.openapi(route, async (c) => {
    const claimed = await claimJob({ ctx: c.var.ctx, input: c.req.valid('json'), signal: c.req.raw.signal })
    return claimed === null ? c.body(null, 204) : c.json(claimed as z.infer<typeof Claim>, 200)
  })
}
