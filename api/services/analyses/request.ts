import { and, eq } from 'drizzle-orm'
import { analyses, models, modelVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError, notFound } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayStartAnalysis } from '../authorization/authorize.ts'
import { visibleTo } from '../authorization/visibility.ts'
import { enqueueJob } from '../jobs/enqueue.ts'
import { findTarget, judgeAll } from '../resolutions/resolve.ts'
import { inTransaction } from '../transaction.ts'

/**
 * The analysis of a patch on a target, by reference. Returns its id; a job is on its way where it is not ready. For
 * whoever may see patch, base and target. Throws `incompatible` where the patch does not fit.
 */
export async function requestAnalysis({ ctx, input }: { ctx: RequestContext; input: { patch: string; target: string } }): Promise<string> {
  assertMayStartAnalysis(ctx.principal)
  const target = await findTarget({ ctx, reference: input.target })
  const [judgement] = await judgeAll({ ctx, target, references: [input.patch] })
  const { patch, base, resolution } = judgement!
  if (patch.weight !== 1) throw new ApiError('invalid_reference', `An analysis measures a patch as it was published: write ${input.patch} without a weight.`)
  await assertBaseVisible(ctx, patch.version.baseVersionId, base.reference)
  const refused = resolution.reasons.filter(({ severity }) => severity === 'refusal')
  if (refused.length > 0) {
    throw new ApiError('incompatible', `${patch.reference} does not fit ${target.reference}: ${refused[0]!.message}`, { reasons: refused.map((reason) => ({ patch: patch.reference, ...reason })) })
  }
  const pair = { patchVersionId: patch.version.id, targetVersionId: target.version.id }
  const id = await inTransaction(ctx, async (tx) => {
    await tx.insert(analyses).values({ ...pair, createdBy: userOf(ctx) }).onConflictDoNothing()
    const [row] = await tx.select().from(analyses).where(and(eq(analyses.patchVersionId, pair.patchVersionId), eq(analyses.targetVersionId, pair.targetVersionId))).for('update')
    // One pair, one job: whoever holds the row first starts it, and a failed one is started again.
    if (row!.state === 'ready' || (row!.state === 'queued' && row!.jobId !== null)) return row!.id
    const job = await enqueueJob({ ctx, tx, kind: 'analyze', organizationId: target.organization.id, subject: { analysisId: row!.id } })
    await tx.update(analyses).set({ state: 'queued', jobId: job.id }).where(eq(analyses.id, row!.id))
    await recordAudit({ ctx, tx, entry: { organizationId: target.organization.id, action: 'analysis.request', subject: row!.id, after: { patch: patch.reference, target: target.reference, job: job.id } } })
    return row!.id
  })
  ctx.launcher.wake(['analyze'])
  return id
}

async function assertBaseVisible(ctx: RequestContext, versionId: string, reference: string): Promise<void> {
  const [row] = await ctx.db
    .select({ id: modelVersions.id })
    .from(modelVersions)
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .where(and(eq(modelVersions.id, versionId), visibleTo(ctx.principal, models)))
  if (row === undefined) throw notFound('The base', reference)
}

function userOf({ principal }: RequestContext): string {
  if (principal.kind === 'anonymous') throw new Error('an analysis is asked for by a user')
  return principal.userId
}
