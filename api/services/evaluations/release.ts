import { and, eq, isNull } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { evaluations, jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { sendJob } from '../jobs/enqueue.ts'
import type { JobRow } from '../jobs/job-view.ts'

/** The jobs of evaluations that wait for this merge to end. The caller's transaction has changed the derivation's row before. */
export async function findWaitingEvaluations(tx: Database, derivationId: string): Promise<JobRow[]> {
  const rows = await tx
    .select({ job: jobs })
    .from(jobs)
    .innerJoin(evaluations, eq(evaluations.jobId, jobs.id))
    .where(and(eq(evaluations.derivationId, derivationId), eq(jobs.state, 'queued'), isNull(jobs.queueId)))
  return rows.map(({ job }) => job)
}

/** Puts them into the queue, now that the merged model is there. Returns how many. */
export async function releaseEvaluations({ ctx, tx, derivationId }: { ctx: Pick<RequestContext, 'queue'>; tx: Database; derivationId: string }): Promise<number> {
  const waiting = await findWaitingEvaluations(tx, derivationId)
  for (const job of waiting) await sendJob({ ctx, tx, job })
  return waiting.length
}
