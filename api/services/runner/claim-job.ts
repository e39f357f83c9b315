import { eq } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { LEASE_SECONDS, type Attempt, type JobKind } from '../../ports/job-queue.ts'
import { assertMayRunJobs } from '../authorization/authorize.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { failAttempt } from './fail-job.ts'
import { analyzeSpec, type AnalyzeSpec } from './analyze-spec.ts'
import { evaluateSpec, type EvaluateSpec } from './evaluate-spec.ts'
import { ingestSpec, type IngestSpec } from './ingest-spec.ts'
import { mergeSpec, type MergeSpec } from './merge-spec.ts'
import { evolveSpec, finetuneSpec, type EvolveJobSpec, type FinetuneJobSpec } from './train-spec.ts'

/** How each kind of job is described to a runner. */
const SPECS: Record<JobKind, (ctx: RequestContext, job: JobRow, attempt: Attempt, token: string) => Promise<ClaimedJob['spec']>> = {
  ingest: ingestSpec, merge: mergeSpec, analyze: analyzeSpec, evaluate: evaluateSpec, finetune: finetuneSpec, evolve: evolveSpec,
}

const POLL_MS = 250
/** Long enough for the longest attempt; what really ends it is the lease. */
const TOKEN_SECONDS = 12 * 3600

export interface ClaimedJob {
  job: { id: string; kind: JobKind; attempt: number }
  token: string
  leaseSeconds: number
  spec: IngestSpec | MergeSpec | AnalyzeSpec | EvaluateSpec | FinetuneJobSpec | EvolveJobSpec
}

/** The next job of one of the kinds, waiting up to `waitSeconds` for one; null when there is none, or this server is about to end. */
export async function claimJob({ ctx, input, signal }: {
  ctx: RequestContext
  input: { kinds: readonly JobKind[]; waitSeconds: number }
  signal: AbortSignal
}): Promise<ClaimedJob | null> {
  assertMayRunJobs(ctx.principal)
  const deadline = Date.now() + input.waitSeconds * 1000
  while (!signal.aborted && !ctx.stopping?.aborted) {
    const attempt = await ctx.queue.claim(input.kinds)
    if (attempt !== null) {
      const claimed = await start(ctx, attempt)
      if (claimed !== null) return claimed
      continue
    }
    if (Date.now() >= deadline) break
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
  return null
}

async function start(ctx: RequestContext, attempt: Attempt): Promise<ClaimedJob | null> {
  const [job] = await ctx.db
    .update(jobs)
    .set({ state: 'running', attempt: attempt.retryCount + 1, startedAt: ctx.clock.now(), progress: null })
    .where(eq(jobs.id, attempt.jobId))
    .returning()
  try {
    if (job === undefined) throw new ApiError('not_found', 'The job is gone.')
    const token = await ctx.signer.signAttempt(attempt, TOKEN_SECONDS)
    const spec = await SPECS[attempt.kind](ctx, job, attempt, token)
    return { job: { id: job.id, kind: attempt.kind, attempt: job.attempt }, token, leaseSeconds: LEASE_SECONDS, spec }
  } catch (error) {
    // What cannot even be described would block the queue: it fails like any other attempt, and is tried again.
    ctx.log.error({ jobId: attempt.jobId, err: error }, 'A job could not be prepared')
    await failAttempt({ ctx, attempt, failure: { code: 'internal', message: 'The registry could not prepare the job; its log says why.', retryable: true } })
    return null
  }
}
