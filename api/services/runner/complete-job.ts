import { eq } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import type { Attempt, JobKind } from '../../ports/job-queue.ts'
import { finishAnalysis, prepareAnalysis, type AnalyzeResult } from '../analyses/finish.ts'
import { discardStaged } from '../blobs/discard.ts'
import { finishMerge, prepareMerge, type MergeResult } from '../derivations/finish-merge.ts'
import { finishEvaluation, prepareEvaluation, type EvaluateResult } from '../evaluations/finish.ts'
import { finishTraining, prepareTraining, type TrainResult } from '../trainings/finish.ts'
import { inTransaction } from '../transaction.ts'
import { finishIngest, type IngestResult } from '../uploads/finish-ingest.ts'
import { attemptPrefix, lockJob, staleAttempt } from './attempt.ts'

export type JobResult =
  | { kind: 'ingest'; result: IngestResult }
  | { kind: 'merge'; result: MergeResult }
  | { kind: 'analyze'; result: AnalyzeResult }
  | { kind: 'evaluate'; result: EvaluateResult }
  | { kind: 'finetune' | 'evolve'; result: TrainResult }

/**
 * What an attempt made becomes visible here, in one transaction and only if the attempt still holds the job.
 * Throws `stale_attempt`, and whatever the result itself is refused for.
 */
export async function completeJob({ ctx, attempt, outcome }: { ctx: RequestContext; attempt: Attempt; outcome: JobResult }): Promise<void> {
  const prepared = outcome.kind === 'merge' ? await prepareMerge({ ctx, attempt, result: outcome.result }) : null
  const analysis = outcome.kind === 'analyze' ? await prepareAnalysis({ ctx, attempt, result: outcome.result }) : null
  const evaluation = outcome.kind === 'evaluate' ? await prepareEvaluation({ ctx, attempt, result: outcome.result }) : null
  const training = outcome.kind === 'finetune' || outcome.kind === 'evolve' ? await prepareTraining({ ctx, attempt, result: outcome.result }) : null
  const { discard, next } = await inTransaction(ctx, async (tx) => {
    const job = await lockJob(tx, attempt.jobId)
    if (!(await ctx.queue.complete(tx, attempt))) throw staleAttempt()
    const discard = outcome.kind === 'ingest' ? (await finishIngest({ ctx, tx, job, result: outcome.result })).discard : []
    const next: JobKind[] = training === null ? [] : ['ingest']
    if (prepared !== null && (await finishMerge({ ctx, tx, job, prepared })).released > 0) next.push('evaluate')
    if (analysis !== null) await finishAnalysis({ ctx, tx, job, analysis })
    if (evaluation !== null) await finishEvaluation({ ctx, tx, job, evaluation })
    if (training !== null) await finishTraining({ ctx, tx, job, training })
    await tx.update(jobs).set({ state: 'succeeded', failure: null, endedAt: ctx.clock.now() }).where(eq(jobs.id, job.id))
    return { discard, next }
  })
  await discardStaged(ctx.blobs, [...discard, attemptPrefix(attempt)])
  if (next.length > 0) ctx.launcher.wake(next)
}
