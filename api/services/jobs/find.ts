import { and, eq, or, type SQL } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { ofOwnOrganization } from '../authorization/visibility.ts'
import { findVisibleAnalysis } from '../analyses/find-visible.ts'
import { findVisibleDerivation } from '../derivations/find-visible.ts'
import { findVisibleEvaluation } from '../evaluations/find-visible.ts'
import { selectJobViews, toJobView, type JobRow, type JobView } from './job-view.ts'

/** Jobs of one's own organizations, and those that one has asked for. */
export function visibleJobs({ principal }: Pick<RequestContext, 'principal'>): SQL {
  const own = ofOwnOrganization(principal, jobs.organizationId)
  return principal.kind === 'anonymous' ? own : or(own, eq(jobs.requestedBy, principal.userId))!
}

/** A job, for whoever may see jobs of its organization, or the merged model, the analysis or the evaluation that it makes. */
export async function findJob({ ctx, input }: { ctx: RequestContext; input: { id: string } }): Promise<JobView> {
  const [row] = await selectJobViews(ctx.db).where(eq(jobs.id, input.id))
  if (row === undefined) throw notFound('The job', input.id)
  const [own] = await ctx.db.select({ id: jobs.id }).from(jobs).where(and(eq(jobs.id, input.id), visibleJobs(ctx)))
  if (own === undefined) {
    const isVisible = await findResult(ctx, row.job).then(() => true, () => false)
    if (!isVisible) throw notFound('The job', input.id)
  }
  return toJobView(row)
}

/** What the job makes, for whoever may see that. */
async function findResult(ctx: RequestContext, { id, derivationId, analysisId, evaluationId }: JobRow): Promise<unknown> {
  if (derivationId !== null) return findVisibleDerivation({ ctx, id: derivationId })
  if (analysisId !== null) return findVisibleAnalysis({ ctx, id: analysisId })
  if (evaluationId !== null) return findVisibleEvaluation({ ctx, id: evaluationId })
  throw notFound('The job', id)
}
