import { and, eq } from 'drizzle-orm'
import { derivationPatches, derivations, models, modelVersions, organizations, patches, patchVersions } from '../../../db/schema.ts'
import { derivationId, DerivationError, type Derivation, type DerivationOptions } from '../../../patch/derivation.ts'
import { MergePlanError, planMerge } from '../../../patch/merge-plan.ts'
import { refusal } from '../../../patch/reason.ts'
import type { MergeStorage } from '../../../patch/merge-storage.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError, notFound } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayStartMerge } from '../authorization/authorize.ts'
import { visibleTo } from '../authorization/visibility.ts'
import { enqueueJob } from '../jobs/enqueue.ts'
import { modelVersionColumns, patchVersionColumns, withModelManifest, withPatchManifest } from '../manifests.ts'
import type { FoundModelVersion } from '../models/find.ts'
import { patchVersionReference } from '../patches/find.ts'
import { inOrder } from '../resolutions/in-order.ts'
import { judgePatch, type Judgement } from '../resolutions/judge.ts'
import { judgeReferences, recipeOf } from '../resolutions/resolve.ts'
import type { SelectedPatch } from '../resolutions/select-patches.ts'
import { inTransaction } from '../transaction.ts'
import { servingObstacle, settleStorage } from './storage.ts'

/**
 * The merged model of a target and patches, by reference. Returns its derivation's id; a job is on its way where it is
 * not ready. `storage` says how the result of a merge that this starts is kept.
 */
export async function requestMerge({ ctx, input }: { ctx: RequestContext; input: { target: string; patches: readonly string[]; options?: DerivationOptions; storage?: MergeStorage | undefined } }): Promise<string> {
  const { target, judgements } = await judgeReferences({ ctx, input })
  return request(ctx, target, judgements, input.storage)
}

/** The same by exact digests, as a lockfile has them: what was yanked since still works. */
export async function requestDerivation({ ctx, input }: { ctx: RequestContext; input: { target: string; patches: readonly { digest: string; weight: number }[]; options: DerivationOptions; storage?: MergeStorage | undefined } }): Promise<string> {
  const target = await findByDigest(ctx, input.target)
  const judgements = await inOrder(input.patches, async ({ digest, weight }) => judgePatch({ ctx, target, patch: await findPatchByDigest(ctx, digest, weight), options: input.options }))
  return request(ctx, target, judgements, input.storage)
}

async function request(ctx: RequestContext, target: FoundModelVersion, judgements: readonly Judgement[], asked: MergeStorage | undefined): Promise<string> {
  const refused = judgements.filter(({ resolution }) => resolution.verdict === 'incompatible')
  if (refused.length > 0) {
    const reasons = refused.flatMap(({ patch, resolution }) => resolution.reasons.filter(({ severity }) => severity === 'refusal').map((reason) => ({ patch: patch.reference, ...reason })))
    throw new ApiError('incompatible', `${refused[0]!.patch.reference} does not fit ${target.reference}: ${reasons[0]!.message}`, { reasons })
  }
  const recipe = sayingWhatIsWrong(() => recipeOf(target, judgements))
  await requireVisibleBases(ctx, recipe, judgements)
  const id = await derivationId(recipe)
  const [present] = await ctx.db.select({ state: derivations.state }).from(derivations).where(eq(derivations.id, id))
  if (present?.state === 'ready') return id
  const tensors = sayingWhatIsWrong(() => planMerge({ target: target.version.manifest!, patches: judgements.map(({ patch, edits, untied, baseManifest }) => ({ manifest: patch.version.manifest!, edits, untied, weight: patch.weight, base: baseManifest })) }))
  assertMayStartMerge(ctx.principal)
  const obstacle = await servingObstacle(ctx)
  await inTransaction(ctx, async (tx) => {
    const [fresh] = await tx.insert(derivations).values({ id, recipe, targetVersionId: target.version.id }).onConflictDoNothing().returning({ id: derivations.id })
    if (fresh !== undefined) {
      await tx.insert(derivationPatches).values(judgements.map(({ patch }, position) => ({ derivationId: id, position, patchVersionId: patch.version.id, weight: patch.weight })))
    }
    const [row] = await tx.select().from(derivations).where(eq(derivations.id, id)).for('update')
    // One derivation, one job: whoever holds the row first starts it, and a failed one is started again.
    if (row!.state === 'ready' || (row!.state === 'queued' && row!.jobId !== null)) return
    const kept = settleStorage({ asked, tensors, obstacle })
    const job = await enqueueJob({ ctx, tx, kind: 'merge', organizationId: target.organization.id, subject: { derivationId: id } })
    await tx.update(derivations).set({ state: 'queued', jobId: job.id, ...kept }).where(eq(derivations.id, id))
    await recordAudit({ ctx, tx, entry: { organizationId: target.organization.id, action: 'derivation.request', subject: id, after: { recipe, job: job.id, storage: kept.storage } } })
  })
  ctx.launcher.wake(['merge'])
  return id
}

/** A base that the merge reads is an input of it, which the merged bytes can tell of: it is for who may see it. */
async function requireVisibleBases(ctx: RequestContext, recipe: Derivation, judgements: readonly Judgement[]): Promise<void> {
  for (const [position, { patch, base }] of judgements.entries()) {
    if (recipe.patches[position]!.base === undefined) continue
    const [visible] = await ctx.db
      .select({ id: modelVersions.id })
      .from(modelVersions)
      .innerJoin(models, eq(models.id, modelVersions.modelId))
      .where(and(eq(modelVersions.id, patch.version.baseVersionId), visibleTo(ctx.principal, models)))
    if (visible === undefined) throw notFound(`The base of ${patch.reference}, which the merge reads,`, base.reference)
  }
}

/** For weights that float32 cannot hold, and for patches that do not go together. */
function sayingWhatIsWrong<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof DerivationError) throw new ApiError('invalid_request', error.message)
    if (error instanceof MergePlanError) throw new ApiError('incompatible', error.message, { reasons: [refusal(error.code, error.message, { tensor: error.tensor })] })
    throw error
  }
}

async function findByDigest(ctx: RequestContext, digest: string): Promise<FoundModelVersion> {
  const [row] = await ctx.db
    .select({ organization: organizations, model: models, version: modelVersionColumns })
    .from(modelVersions)
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .innerJoin(organizations, eq(organizations.id, models.organizationId))
    .where(and(eq(modelVersions.digest, digest), eq(modelVersions.state, 'published'), visibleTo(ctx.principal, models)))
    .limit(1)
  if (row === undefined) throw notFound('The model version', digest)
  const { organization, model, version } = row
  return { organization, model, version: await withModelManifest(ctx.db, version), reference: `${organization.name}/${model.name}@${version.version}` }
}

async function findPatchByDigest(ctx: RequestContext, digest: string, weight: number): Promise<SelectedPatch> {
  const [row] = await ctx.db
    .select({ version: patchVersionColumns })
    .from(patchVersions)
    .innerJoin(patches, eq(patches.id, patchVersions.patchId))
    .where(and(eq(patchVersions.digest, digest), eq(patchVersions.state, 'published'), visibleTo(ctx.principal, patches)))
    .limit(1)
  if (row === undefined) throw notFound('The patch version', digest)
  return { reference: (await patchVersionReference(ctx.db, row.version.id))!, weight, version: await withPatchManifest(ctx.db, row.version), yanked: null, deprecated: null }
}
