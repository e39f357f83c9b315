import { eq } from 'drizzle-orm'
import { evaluations, jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { findFileOf, type FoundFile } from '../files/find-file.ts'
import { isHeld, staleAttempt } from './attempt.ts'

/** A file of the merged model that the attempt's job evaluates, and of nothing else. Throws `stale_attempt` and `not_found`. */
export async function findAttemptFile({ ctx, attempt, path }: { ctx: RequestContext; attempt: Attempt; path: string }): Promise<FoundFile> {
  const [row] = await ctx.db
    .select({ state: jobs.state, attempt: jobs.attempt, derivationId: evaluations.derivationId })
    .from(jobs)
    .leftJoin(evaluations, eq(evaluations.id, jobs.evaluationId))
    .where(eq(jobs.id, attempt.jobId))
  if (row === undefined || !isHeld(row, attempt)) throw staleAttempt()
  if (row.derivationId === null) throw notFound(`The file ${JSON.stringify(path)} of the job`, attempt.jobId)
  return findFileOf({ ctx, owner: { owner: { derivationId: row.derivationId }, reference: row.derivationId, visibility: 'internal' }, path })
}
