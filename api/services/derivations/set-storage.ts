import { and, eq, inArray, isNotNull } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { changedTensors, derivations, jobs, models, modelVersions, organizations } from '../../../db/schema.ts'
import type { MergeStorage } from '../../../patch/merge-storage.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { releaseBlobs } from '../blobs/release.ts'
import { enqueueJob } from '../jobs/enqueue.ts'
import { inTransaction } from '../transaction.ts'
import { findVisibleDerivation } from './find-visible.ts'
import { planMerge } from './plan-merge.ts'
import { ASKED_FOR, assertComputable, servingObstacle } from './storage.ts'

/**
 * Has the changed tensors of a merged model computed from now on, or a job keep them: for who may publish to the target's
 * organization, whose space it is, which garbage collection frees. Its bytes stay the same. Throws `wrong_state` where it is not ready, or its job runs.
 */
export async function setStorage({ ctx, input }: { ctx: RequestContext; input: { id: string; storage: MergeStorage } }): Promise<void> {
  const { id } = await findVisibleDerivation({ ctx, id: input.id })
  const organization = await organizationOf(ctx.db, id)
  assertMayPublish(ctx.principal, organization)
  if (input.storage === 'computed') await evict(ctx, id, organization.id)
  else await materialise(ctx, id, organization.id)
}

async function evict(ctx: RequestContext, id: string, organizationId: string): Promise<void> {
  const obstacle = await servingObstacle(ctx)
  await inTransaction(ctx, async (tx) => {
    const { storage, jobIsOpen } = await lockReady(tx, id)
    if (jobIsOpen) throw new ApiError('wrong_state', `A job is materialising the merged model ${id}. Wait for it, then ask again.`)
    if (storage === 'computed') return
    assertComputable((await planMerge({ db: tx, derivationId: id })).changed, obstacle)
    const kept = and(eq(changedTensors.derivationId, id), isNotNull(changedTensors.blob))
    const blobs = (await tx.select({ blob: changedTensors.blob }).from(changedTensors).where(kept)).map(({ blob }) => blob!)
    await tx.update(changedTensors).set({ blob: null }).where(kept)
    await releaseBlobs(tx, blobs)
    await tx.update(derivations).set({ storage: 'computed', storageReason: ASKED_FOR }).where(eq(derivations.id, id))
    await recordAudit({ ctx, tx, entry: { organizationId, action: 'derivation.evict', subject: id, before: { storage }, after: { storage: 'computed' } } })
  })
}

async function materialise(ctx: RequestContext, id: string, organizationId: string): Promise<void> {
  await inTransaction(ctx, async (tx) => {
    const { storage, jobIsOpen } = await lockReady(tx, id)
    if (storage === 'materialised' || jobIsOpen) return
    const job = await enqueueJob({ ctx, tx, kind: 'merge', organizationId, subject: { derivationId: id } })
    await tx.update(derivations).set({ jobId: job.id }).where(eq(derivations.id, id))
    await recordAudit({ ctx, tx, entry: { organizationId, action: 'derivation.request-materialise', subject: id, before: { storage }, after: { job: job.id } } })
  })
  ctx.launcher.wake(['merge'])
}

/** The row, locked until the transaction ends. */
async function lockReady(tx: Database, id: string): Promise<{ storage: MergeStorage; jobIsOpen: boolean }> {
  const [row] = await tx.select({ state: derivations.state, storage: derivations.storage, jobId: derivations.jobId }).from(derivations).where(eq(derivations.id, id)).for('update')
  if (row!.state !== 'ready') throw new ApiError('wrong_state', `The merged model ${id} is not ready (its state is ${row!.state}), so there is nothing to keep or let go of yet.`)
  const open = row!.jobId === null ? [] : await tx.select({ id: jobs.id }).from(jobs).where(and(eq(jobs.id, row!.jobId), inArray(jobs.state, ['queued', 'running'])))
  return { storage: row!.storage, jobIsOpen: open.length > 0 }
}

async function organizationOf(db: Database, id: string) {
  const [row] = await db
    .select({ id: organizations.id, name: organizations.name })
    .from(derivations)
    .innerJoin(modelVersions, eq(modelVersions.id, derivations.targetVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .innerJoin(organizations, eq(organizations.id, models.organizationId))
    .where(eq(derivations.id, id))
  return row!
}
