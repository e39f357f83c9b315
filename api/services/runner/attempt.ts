import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { isJobKind, type Attempt } from '../../ports/job-queue.ts'
import type { JobRow } from '../jobs/job-view.ts'

/**
 * The attempt that a runner's report is about, from its own token: the only thing that gives the right to report.
 * Throws `unauthenticated`, or `forbidden` for the token of another job.
 */
export async function authorizeAttempt({ ctx, token, jobId }: { ctx: Pick<RequestContext, 'signer'>; token: string | null; jobId: string }): Promise<Attempt> {
  const claims = token === null ? null : await ctx.signer.verifyAttempt(token)
  if (claims === null || !isJobKind(claims.kind)) throw new ApiError('unauthenticated', 'This needs the token that came with the claim of the job; the one sent is not valid, or has expired.')
  if (claims.jobId !== jobId) throw new ApiError('forbidden', 'The token is for another job.')
  return { kind: claims.kind, jobId, queueId: claims.queueId, retryCount: claims.retryCount }
}

export function staleAttempt(): ApiError {
  return new ApiError('stale_attempt', 'This attempt no longer holds the job: its lease ended, or the job did. Stop, and claim another.')
}

/** The job's row, locked until the transaction ends. */
export async function lockJob(tx: Database, jobId: string): Promise<JobRow> {
  const [job] = await tx.select().from(jobs).where(eq(jobs.id, jobId)).for('update')
  if (job === undefined) throw staleAttempt()
  return job
}

/** The job's row, locked, if this attempt holds the job: a later one, or the job's end, has taken it from others. Throws `stale_attempt`. */
export async function lockHeldJob(tx: Database, attempt: Attempt): Promise<JobRow> {
  const job = await lockJob(tx, attempt.jobId)
  if (!isHeld(job, attempt)) throw staleAttempt()
  return job
}

/** Whether this attempt is the one that works on the job now. */
export function isHeld(job: Pick<JobRow, 'state' | 'attempt'>, attempt: Attempt): boolean {
  return job.state === 'running' && job.attempt === attempt.retryCount + 1
}

/** Where one attempt of a job stages what it writes. */
export function attemptPrefix(attempt: Attempt): string {
  return `attempts/${attempt.jobId}/${attempt.retryCount}`
}

/** Where an attempt stages what an evaluation recorded. */
export function sampleKey(attempt: Attempt, sha256: string): string {
  return `${attemptPrefix(attempt)}/${sha256}`
}
