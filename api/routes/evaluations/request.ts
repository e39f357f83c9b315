import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { ApiError } from '../../errors.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { MAX_PATCHES } from '../../../patch/derivation.ts'
import { MAX_YAML_LENGTH } from '../../../patch/plain-yaml.ts'
import { describeEvaluation } from '../../services/evaluations/describe.ts'
import { requestEvaluation } from '../../services/evaluations/request.ts'
import { waitForJob } from '../../services/jobs/wait.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { preferredWait, RETRY_AFTER_SECONDS } from '../prefer-wait.ts'
import { tokenRequired } from '../security.ts'
import { Evaluation, How, PendingEvaluation } from './evaluation-schema.ts'

const EvaluationRequest = z
  .strictObject({
    target: z.string().openapi({ example: 'lab/mistral@2.0' }),
    patch: z.string().nullable().default(null).openapi({ description: '`org/name`, with `@version`, `@range` or `@tag`.', example: 'hospital/triage@^1' }),
    patches: z.array(z.string().max(500)).max(MAX_PATCHES).default([]).openapi({ description: 'In place of `patch`: several, in the order of summation, with `:weight` where it is not 1. They are merged.', example: ['hospital/triage:0.8', 'lab/style@2.1.0:0.5'] }),
    how: How.nullable().default(null).openapi({ description: 'By default `merged` with a patch, `plain` without.' }),
    tasks: z.array(z.string().min(1).max(200)).max(200).default([]).openapi({ description: 'Names of lm-eval’s tasks.', example: ['boolq'] }),
    taskFile: z.string().max(MAX_YAML_LENGTH).nullable().default(null).openapi({ description: 'YAML of a task of your own, in lm-eval’s form; it may name no code and no path.' }),
    data: z.string().max(200).nullable().default(null).openapi({ description: 'Data of your organization that the runner has, as `org/name`; without it each task’s own.' }),
    num_fewshot: z.int().min(0).max(1000).nullable().default(null),
    batch_size: z.int().min(1).max(4096).default(8),
    limit: z.int().min(1).nullable().default(null).openapi({ description: 'Questions of each task; all of them without it.' }),
    seed: z.int().min(0).max(2 ** 31 - 1).default(1234),
  })
  .openapi('EvaluationRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/evaluations',
  operationId: 'requestEvaluation',
  tags: ['evaluations'],
  summary: 'Find out how a model does on tasks, alone or with a patch',
  description: 'With lm-eval. For whoever may see target and patch; starting one needs a token. A question is measured once; one about a merged model waits for its merge. `Prefer: wait=N` waits up to N seconds (at most 60).',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(EvaluationRequest) },
  responses: { 200: jsonContent(Evaluation, 'It has been measured.'), 202: jsonContent(PendingEvaluation, 'A job measures it; `Location` names the job.'), ...errorResponses(403, 404, 409, 410, 422, 502, 503) },
})

export function registerRequestEvaluation(app: App): void {
  app.openapi(route, async (c) => {
    const { ctx } = c.var
    const id = await requestEvaluation({ ctx, input: c.req.valid('json') })
    const wait = preferredWait(c.req.header('prefer'))
    let evaluation = await describeEvaluation({ ctx, input: { id } })
    if (evaluation.state === 'queued' && evaluation.job !== null && wait > 0) {
      c.header('Preference-Applied', `wait=${wait}`)
      await waitForJob({ ctx, jobId: evaluation.job.id, seconds: wait, signal: c.req.raw.signal })
      evaluation = await describeEvaluation({ ctx, input: { id } })
    }
    if (evaluation.state === 'failed') throw new ApiError('evaluation_failed', `The evaluation failed: ${evaluation.job?.failure?.message ?? 'no reason is recorded'} Ask again to start another job.`, { job: evaluation.job?.id })
    if (evaluation.state === 'ready') return c.json(evaluation, 200)
    const job = evaluation.job!
    c.header('Location', `/v1/jobs/${job.id}`)
    c.header('Retry-After', String(RETRY_AFTER_SECONDS))
    return c.json({ evaluation: id, job }, 202)
  })
}
