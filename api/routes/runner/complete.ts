import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { completeJob, type JobResult } from '../../services/runner/complete-job.ts'
import { errorResponses, jsonBody } from '../error-responses.ts'
import { attemptAuthenticated, readAttempt } from './read-attempt.ts'
import { AnalyzeResult, AttemptParams, attemptToken, EvaluateResult, IngestResult, MergeResult, TrainResult } from './runner-schema.ts'

const route = createRoute({
  method: 'post',
  path: '/v1/runner/jobs/{id}/complete',
  operationId: 'completeJob',
  tags: ['runners'],
  summary: 'Done: what the attempt made becomes visible',
  security: attemptToken,
  middleware: [attemptAuthenticated] as const,
  request: { params: AttemptParams, body: jsonBody(z.object({ result: z.union([IngestResult, MergeResult, AnalyzeResult, EvaluateResult, TrainResult]) }).openapi('CompleteRequest')) },
  responses: { 204: { description: 'It is so.' }, ...errorResponses(403, 409, 422, 507) },
})

export function registerCompleteJob(app: App): void {
  app.openapi(route, async (c) => {
    const attempt = await readAttempt(c, c.req.valid('param').id)
    const { result } = c.req.valid('json')
    if (!kindsOf(result).includes(attempt.kind)) throw new ApiError('invalid_request', `This is not the result of a job of the kind ${attempt.kind}.`)
    await completeJob({ ctx: c.var.ctx, attempt, outcome: { kind: attempt.kind, result } as JobResult })
    return c.body(null, 204)
  })
}

function kindsOf(result: object): Attempt['kind'][] {
  if ('measured' in result) return ['analyze']
  if ('scores' in result) return ['evaluate']
  if ('training' in result) return ['finetune', 'evolve']
  return 'tensors' in result ? ['merge'] : ['ingest']
}
