import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { trainings } from '../../../db/schema.ts'
import { canonicalJson } from '../../../patch/derivation.ts'
import type { EvolveSpec, FinetuneSpec } from '../../../patch/training.ts'
import type { RequestContext } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { enqueueJob } from '../jobs/enqueue.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { assertMayTakeOver, assertReplaceable, replaceFiles } from '../uploads/draft.ts'
import { lockVersion, ownerColumns, reopen, type UploadSubject } from '../uploads/subject.ts'
import { readUploadFiles } from '../uploads/upload-view.ts'
import { assertNotInTraining, findOpenTraining } from './find-open.ts'

export type Training = { kind: 'finetune'; spec: FinetuneSpec } | { kind: 'evolve'; spec: EvolveSpec }

/**
 * Has a job make the version, which is reserved for it, in the caller's transaction. The same training again gives the job
 * that is on its way; a rejected version is trained anew. The caller has authorized it. Returns the staged keys to discard
 * after the commit. Throws `version_exists`.
 */
export async function startTraining({ ctx, tx, subject, training: { kind, spec }, datasetVersionId, userId }: { ctx: RequestContext; tx: Database; subject: UploadSubject; training: Training; datasetVersionId: string | null; userId: string }): Promise<{ job: JobRow; discard: string[] }> {
  const version = await lockVersion(tx, subject)
  const ofSubject = subject.kind === 'model' ? eq(trainings.modelVersionId, subject.versionId) : eq(trainings.patchVersionId, subject.versionId)
  const [earlier] = await tx.select().from(trainings).where(ofSubject)
  const open = await findOpenTraining(tx, subject)
  if (open !== null && earlier !== undefined && canonicalJson(earlier.spec) === canonicalJson(spec)) return { job: open, discard: [] }
  await assertNotInTraining(tx, subject)
  const before = await readUploadFiles(tx, subject)
  assertMayTakeOver(ctx, subject, version, before)
  await assertReplaceable(tx, subject, version)
  const discard = await replaceFiles({ tx, subject, before, files: [] })
  await reopen(tx, subject, userId)
  const job = await enqueueJob({ ctx, tx, kind, organizationId: subject.organization.id, subject: ownerColumns(subject) })
  if (earlier === undefined) await tx.insert(trainings).values({ ...ownerColumns(subject), spec, datasetVersionId, jobId: job.id })
  else await tx.update(trainings).set({ spec, datasetVersionId, jobId: job.id, record: null }).where(ofSubject)
  await recordAudit({ ctx, tx, entry: { organizationId: subject.organization.id, action: `${subject.kind}-version.train`, subject: subject.reference, before: { state: version.state }, after: { state: 'draft', job: job.id, spec } } })
  return { job, discard }
}
