import { and, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { analyses, derivations, evaluations, jobs, type JobFailure } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { recordAudit } from '../audit/record.ts'
import { findWaitingEvaluations } from '../evaluations/release.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { rejectTrained } from '../trainings/finish.ts'
import { inTransaction } from '../transaction.ts'
import { attemptPrefix, lockJob, staleAttempt } from './attempt.ts'

/** An attempt that did not work out: the job waits for another one, or ends as failed. Throws `stale_attempt`. */
export async function failAttempt({ ctx, attempt, failure }: { ctx: RequestContext; attempt: Attempt; failure: JobFailure }): Promise<void> {
  await inTransaction(ctx, async (tx) => {
    const job = await lockJob(tx, attempt.jobId)
    const { held, willRetry } = await ctx.queue.fail(tx, attempt, { retry: failure.retryable })
    if (!held) throw staleAttempt()
    if (willRetry) await tx.update(jobs).set({ state: 'queued', progress: null, failure }).where(eq(jobs.id, job.id))
    else await endFailed(ctx, tx, job, failure)
  })
  await ctx.blobs.discard(attemptPrefix(attempt))
}

/** Ends a job for good. What waited for it can be asked for again, which makes a new job. */
export async function endFailed(ctx: Pick<RequestContext, 'clock' | 'principal' | 'requestId'>, tx: Database, job: JobRow, failure: JobFailure): Promise<void> {
  await tx.update(jobs).set({ state: 'failed', failure, endedAt: ctx.clock.now() }).where(eq(jobs.id, job.id))
  // A merged model that is ready stays so: only its materialising has failed.
  if (job.derivationId !== null) await tx.update(derivations).set({ state: 'failed' }).where(and(eq(derivations.id, job.derivationId), eq(derivations.state, 'queued')))
  if (job.analysisId !== null) await tx.update(analyses).set({ state: 'failed' }).where(eq(analyses.id, job.analysisId))
  if (job.evaluationId !== null) await tx.update(evaluations).set({ state: 'failed' }).where(eq(evaluations.id, job.evaluationId))
  if (job.kind === 'finetune' || job.kind === 'evolve') await rejectTrained({ ctx, tx, job, failure })
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: 'job.fail', subject: job.id, before: { state: job.state }, after: { state: 'failed', failure } } })
  if (job.derivationId === null) return
  for (const waiting of await findWaitingEvaluations(tx, job.derivationId)) {
    await endFailed(ctx, tx, waiting, { code: 'merge_failed', message: `The merge that it waited for has failed: ${failure.message}`, retryable: false })
  }
}
