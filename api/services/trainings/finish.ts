import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs, trainings } from '../../../db/schema.ts'
import type { TrainingRecord } from '../../../patch/training.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { recordAudit } from '../audit/record.ts'
import { enqueueJob } from '../jobs/enqueue.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { staleAttempt } from '../runner/attempt.ts'
import { assertArrived, joinParts } from '../uploads/complete.ts'
import type { NewFile } from '../uploads/draft.ts'
import { findUploadSubject } from '../uploads/find-subject.ts'
import { lockVersion, ownerColumns, setState, type UploadSubject } from '../uploads/subject.ts'
import { digestOfFiles, readUploadFiles } from '../uploads/upload-view.ts'

/** What a runner says of a training: the files are those of the version, which it has sent. */
export interface TrainResult {
  readonly training: TrainingRecord
  readonly files: readonly NewFile[]
}

export interface PreparedTraining { readonly subject: UploadSubject; readonly record: TrainingRecord; readonly digest: string }

/** Checks that the version's files have arrived whole. Throws `upload_incomplete`, and `invalid_request` for other files than were announced. */
export async function prepareTraining({ ctx, attempt, result }: { ctx: RequestContext; attempt: Attempt; result: TrainResult }): Promise<PreparedTraining> {
  const [job] = await ctx.db.select().from(jobs).where(eq(jobs.id, attempt.jobId))
  if (job === undefined) throw staleAttempt()
  const subject = await findUploadSubject(ctx.db, job)
  const rows = await readUploadFiles(ctx.db, subject)
  const digest = await digestOfFiles(subject.kind, rows)
  if (rows.length === 0 || digest !== (await digestOfFiles(subject.kind, result.files))) throw new ApiError('invalid_request', `The result names other files of ${subject.reference} than were announced. Announce them, send them, then complete.`)
  await assertArrived(ctx, subject, rows)
  await joinParts(ctx, rows)
  return { subject, record: result.training, digest }
}

/** Hands the trained version to verification, like an upload that is complete. Throws `wrong_state`. */
export async function finishTraining({ ctx, tx, job, training: { subject, record, digest } }: { ctx: RequestContext; tx: Database; job: JobRow; training: PreparedTraining }): Promise<void> {
  const { state } = await lockVersion(tx, subject)
  if (state !== 'draft' || (await digestOfFiles(subject.kind, await readUploadFiles(tx, subject))) !== digest) throw new ApiError('wrong_state', `${subject.reference} is ${state}, or has other files by now: its training cannot end now.`)
  await setState(tx, subject, 'verifying')
  await tx.update(trainings).set({ record }).where(eq(trainings.jobId, job.id))
  await enqueueJob({ ctx, tx, kind: 'ingest', organizationId: job.organizationId, subject: ownerColumns(subject) })
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: `${subject.kind}-version.verify`, subject: subject.reference, before: { state }, after: { state: 'verifying', digest } } })
}

/** A training that failed for good leaves its version rejected, with the reason; it may be trained or uploaded again. */
export async function rejectTrained({ ctx, tx, job, failure }: { ctx: Pick<RequestContext, 'principal' | 'requestId'>; tx: Database; job: JobRow; failure: { code: string; message: string } }): Promise<void> {
  const subject = await findUploadSubject(tx, job)
  const { state } = await lockVersion(tx, subject)
  if (state !== 'draft') return
  const rejection = [{ code: failure.code, message: failure.message }]
  await setState(tx, subject, 'rejected', rejection)
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: `${subject.kind}-version.reject`, subject: subject.reference, before: { state }, after: { state: 'rejected', rejection } } })
}
