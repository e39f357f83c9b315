import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { ApiError } from '../../errors.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { describeAnalysis } from '../../services/analyses/describe.ts'
import { requestAnalysis } from '../../services/analyses/request.ts'
import { waitForJob } from '../../services/jobs/wait.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { preferredWait, RETRY_AFTER_SECONDS } from '../prefer-wait.ts'
import { tokenRequired } from '../security.ts'
import { Analysis, PendingAnalysis } from './analysis-schema.ts'

const AnalysisRequest = z
  .strictObject({
    patch: z.string().openapi({ description: '`org/name`, with `@version`, `@range` or `@tag`.', example: 'hospital/triage@^1' }),
    target: z.string().openapi({ example: 'lab/mistral@2.0' }),
  })
  .openapi('AnalysisRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/analyses',
  operationId: 'requestAnalysis',
  tags: ['analyses'],
  summary: 'Measure what a patch meets on a target, from weights alone',
  description: 'For whoever may see patch, base and target; starting one needs a token. A pair is measured once. `Prefer: wait=N` waits up to N seconds (at most 60).',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(AnalysisRequest) },
  responses: { 200: jsonContent(Analysis, 'It has been measured.'), 202: jsonContent(PendingAnalysis, 'A job measures it; `Location` names the job.'), ...errorResponses(403, 404, 409, 410, 422, 502) },
})

export function registerRequestAnalysis(app: App): void {
  app.openapi(route, async (c) => {
    const { ctx } = c.var
    const id = await requestAnalysis({ ctx, input: c.req.valid('json') })
    const wait = preferredWait(c.req.header('prefer'))
    let analysis = await describeAnalysis({ ctx, input: { id } })
    if (analysis.state === 'queued' && analysis.job !== null && wait > 0) {
      c.header('Preference-Applied', `wait=${wait}`)
      await waitForJob({ ctx, jobId: analysis.job.id, seconds: wait, signal: c.req.raw.signal })
      analysis = await describeAnalysis({ ctx, input: { id } })
    }
    if (analysis.state === 'failed') throw new ApiError('analysis_failed', `The analysis failed: ${analysis.job?.failure?.message ?? 'no reason is recorded'} Ask again to start another job.`, { job: analysis.job?.id })
    if (analysis.state === 'ready') return c.json(analysis as z.infer<typeof Analysis>, 200)
    const job = analysis.job!
    c.header('Location', `/v1/jobs/${job.id}`)
    c.header('Retry-After', String(RETRY_AFTER_SECONDS))
    return c.json({ analysis: id, job }, 202)
  })
}
