import { asc } from 'drizzle-orm'
import pLimit from 'p-limit'
import { uploadFiles } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { enqueueJob } from '../jobs/enqueue.ts'
import { findJobView } from '../jobs/job-view.ts'
import { inTransaction } from '../transaction.ts'
import { assertNotInTraining } from '../trainings/find-open.ts'
import { replacedError } from './draft.ts'
import { partsOf } from './parts.ts'
import { jobsOf, lockVersion, ownerColumns, readVersion, setState, stagedKey, uploadFilesOf, type UploadSubject, type VersionState } from './subject.ts'
import { describeUpload, digestOfFiles, readStored, readUploadFiles, type UploadFileRow, type UploadView } from './upload-view.ts'

/**
 * Hands a draft whose bytes have all arrived to verification. Resumable: `draft → uploaded` closes the draft, then
 * parts are joined, then `uploaded → verifying` enqueues the ingest job. Idempotent from there on.
 * With `digest`, only if these are still the files: another publish may have replaced the draft.
 */
export async function completeUpload({ ctx, subject, digest }: { ctx: RequestContext; subject: UploadSubject; digest?: string | undefined }): Promise<UploadView> {
  assertMayPublish(ctx.principal, subject.organization)
  await assertNotInTraining(ctx.db, subject)
  const rows = await readUploadFiles(ctx.db, subject)
  await assertDigest(subject, rows, digest)
  const version = await readVersion(ctx.db, subject)
  if (version.state === 'rejected') throw rejectedError(subject, version)
  if (version.state === 'draft') await closeDraft(ctx, subject, rows)
  await verify(ctx, subject, digest)
  ctx.launcher.wake(['ingest'])
  return describeUpload({ ctx, subject })
}

async function closeDraft(ctx: RequestContext, subject: UploadSubject, rows: readonly UploadFileRow[]): Promise<void> {
  await assertArrived(ctx, subject, rows)
  await inTransaction(ctx, async (tx) => {
    const version = await lockVersion(tx, subject)
    if (version.state !== 'draft') return
    const now = await tx.select({ id: uploadFiles.id }).from(uploadFiles).where(uploadFilesOf(subject)).orderBy(asc(uploadFiles.path))
    if (now.length !== rows.length || now.some((row, i) => row.id !== rows[i]!.id)) throw replacedError(subject)
    await setState(tx, subject, 'uploaded')
    await recordAudit({ ctx, tx, entry: { organizationId: subject.organization.id, action: `${subject.kind}-version.upload`, subject: subject.reference, before: { state: 'draft' }, after: { state: 'uploaded' } } })
  })
}

/** Throws `upload_incomplete`, naming what is missing. */
export async function assertArrived(ctx: RequestContext, subject: UploadSubject, rows: readonly UploadFileRow[]): Promise<void> {
  const missing = await findMissing(ctx, rows)
  if (missing.length === 0) return
  const named = missing.slice(0, 5).map((file) => file.path).join(', ')
  throw new ApiError('upload_incomplete', `Not all bytes of ${subject.reference} have arrived: ${named}${missing.length > 5 ? ` and ${missing.length - 5} more files` : ''}. PUT them, then complete again.`, { missing })
}

async function verify(ctx: RequestContext, subject: UploadSubject, digest: string | undefined): Promise<void> {
  const rows = await readUploadFiles(ctx.db, subject)
  const version = await readVersion(ctx.db, subject)
  if (version.state === 'uploaded') await joinParts(ctx, rows)
  await inTransaction(ctx, async (tx) => {
    const { state } = await lockVersion(tx, subject)
    await assertDigest(subject, await readUploadFiles(tx, subject), digest)
    const job = await findJobView(tx, jobsOf(subject))
    const again = state === 'verifying' && (job === null || job.state === 'failed' || job.state === 'cancelled')
    if (state !== 'uploaded' && !again) return
    await setState(tx, subject, 'verifying')
    await enqueueJob({ ctx, tx, kind: 'ingest', organizationId: subject.organization.id, subject: ownerColumns(subject) })
    await recordAudit({ ctx, tx, entry: { organizationId: subject.organization.id, action: `${subject.kind}-version.verify`, subject: subject.reference, before: { state }, after: { state: 'verifying' } } })
  })
}

/** Joins what arrived in parts. Idempotent. */
export async function joinParts(ctx: RequestContext, rows: readonly UploadFileRow[]): Promise<void> {
  for (const row of rows) {
    const parts = partsOf(row.size)
    if (!row.held && parts.length > 1) await ctx.blobs.assemble(stagedKey(row.id), parts.map((part) => ({ number: part.number, size: part.length })))
  }
}

async function findMissing(ctx: RequestContext, rows: readonly UploadFileRow[]): Promise<{ path: string; parts: number[] }[]> {
  const found = await pLimit(16).map(rows.filter(({ held }) => !held), async (row) => {
    const stored = await readStored(ctx, row)
    return { path: row.path, parts: partsOf(row.size).map(({ number }) => number).filter((number) => !stored.has(number)) }
  })
  return found.filter(({ parts }) => parts.length > 0)
}

async function assertDigest(subject: UploadSubject, rows: readonly UploadFileRow[], digest: string | undefined): Promise<void> {
  if (digest !== undefined && (await digestOfFiles(subject.kind, rows)) !== digest) throw replacedError(subject)
}

function rejectedError(subject: UploadSubject, version: VersionState): ApiError {
  return new ApiError('rejected', `${subject.reference} was rejected: ${version.rejection?.[0]?.message ?? 'no reason is recorded'}. Put it right and upload it again.`, { rejection: version.rejection })
}
