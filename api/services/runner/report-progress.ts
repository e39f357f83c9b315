import { eq } from 'drizzle-orm'
import { jobs, type JobProgress } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { staleAttempt } from './attempt.ts'

/** A runner is alive: extends its lease and shows how far it is. Throws `stale_attempt`. */
export async function reportProgress({ ctx, attempt, progress }: { ctx: RequestContext; attempt: Attempt; progress: JobProgress | null }): Promise<{ cancel: boolean }> {
  if (!(await ctx.queue.touch(attempt))) throw staleAttempt()
  const [job] = await ctx.db.update(jobs).set(progress === null ? { attempt: attempt.retryCount + 1 } : { progress }).where(eq(jobs.id, attempt.jobId)).returning({ state: jobs.state })
  return { cancel: job?.state === 'cancelled' }
}
