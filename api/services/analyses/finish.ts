import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { analyses } from '../../../db/schema.ts'
import { analysisOf, type Analysis, type MeasuredTensor } from '../../../patch/analysis.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { recordAudit } from '../audit/record.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { planStoredAnalysis } from './plan.ts'

/** What a runner says of an analysis: one entry for every tensor that it was given. */
export interface AnalyzeResult {
  readonly engine: { readonly name: string; readonly version: string; readonly path: string }
  readonly measured: readonly MeasuredTensor[]
  readonly seconds: number
}

export interface PreparedAnalysis { readonly id: string; readonly result: Analysis }

/** The result as it is stored: figures from the runner's sums, digests and what was left out from the registry's own plan. */
export async function prepareAnalysis({ ctx, attempt, result }: { ctx: RequestContext; attempt: Attempt; result: AnalyzeResult }): Promise<PreparedAnalysis> {
  const [row] = await ctx.db.select({ id: analyses.id }).from(analyses).where(eq(analyses.jobId, attempt.jobId))
  if (row === undefined) throw new ApiError('stale_attempt', 'The analysis has another job now.')
  const { patch, base, target, tensors, unmeasured } = await planStoredAnalysis({ db: ctx.db, id: row.id })
  const isWhole = tensors.length === result.measured.length && tensors.every(({ name }, index) => result.measured[index]!.name === name)
  if (!isWhole) throw new ApiError('invalid_request', `The analysis is of ${tensors.length} tensors in the order of the job; the result names ${result.measured.length}, or others.`)
  const measured = { by: ctx.publicUrl, at: ctx.clock.now().toISOString(), engine: { ...result.engine }, seconds: result.seconds }
  return { id: row.id, result: analysisOf({ patch: patch.digest, base: base.digest, target: target.digest, measured, tensors: result.measured, unmeasured }) }
}

export async function finishAnalysis({ ctx, tx, job, analysis: { id, result } }: { ctx: RequestContext; tx: Database; job: JobRow; analysis: PreparedAnalysis }): Promise<void> {
  await tx.update(analyses).set({ state: 'ready', result, readyAt: ctx.clock.now() }).where(eq(analyses.id, id))
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: 'analysis.measure', subject: id, after: { state: 'ready', tensors: result.tensors.length } } })
}
