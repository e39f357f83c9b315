import { inArray } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { uploadFiles } from '../../../db/schema.ts'
import { checkPaths } from '../../../patch/file-path.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayPublish, roleIn } from '../authorization/authorize.ts'
import { findJobView } from '../jobs/job-view.ts'
import { findHeld } from './held.ts'
import { assertNotInTraining } from '../trainings/find-open.ts'
import { jobsOf, lockVersion, ownerColumns, reopen, stagedKey, type UploadSubject, type VersionState } from './subject.ts'
import { describeUpload, digestOfFiles, readUploadFiles, type UploadFileRow, type UploadView } from './upload-view.ts'

export interface NewFile { path: string; size: number; sha256: string }

/** Most bytes of one version: far above any model, far below where sums lose precision. */
const MAX_VERSION_BYTES = 2 ** 46

export function checkFiles(files: readonly NewFile[]): void {
  checkPaths(files.map((file) => file.path))
  const total = files.reduce((sum, file) => sum + file.size, 0)
  if (total > MAX_VERSION_BYTES) throw new ApiError('invalid_request', `The files have ${total} bytes together; a version has at most ${MAX_VERSION_BYTES}.`)
}

/**
 * Sets the files of a draft, in the transaction that made or found its version, and locks the version.
 * The same files again resume it; other files replace those of a draft, of a rejected version, or of one whose
 * verification has failed for good. Returns the staged keys to discard after the commit.
 */
export async function setDraftFiles({ ctx, tx, subject, files }: { ctx: RequestContext; tx: Database; subject: UploadSubject; files: readonly NewFile[] }): Promise<string[]> {
  const version = await lockVersion(tx, subject)
  const before = await readUploadFiles(tx, subject)
  const [digest, digestBefore] = await Promise.all([digestOfFiles(subject.kind, files), digestOfFiles(subject.kind, before)])
  const same = before.length > 0 && digest === digestBefore
  if (version.state === 'published') {
    throw new ApiError('version_exists', `${subject.reference} is published already, and versions never change. Publish under another version.`, { digest: version.digest, same })
  }
  assertMayPublish(ctx.principal, subject.organization)
  await assertNotInTraining(tx, subject)
  assertMayTakeOver(ctx, subject, version, before)
  if (same && version.state !== 'rejected') return []
  await assertReplaceable(tx, subject, version)
  const discard = await replaceFiles({ tx, subject, before, files })
  await reopen(tx, subject, ctx.principal.userId)
  await recordAudit({
    ctx,
    tx,
    entry: { organizationId: subject.organization.id, action: `${subject.kind}-version.draft`, subject: subject.reference, before: { state: version.state }, after: { state: 'draft', digest } },
  })
  return discard
}

/** A draft with files is its publisher's, and its organization's admins'. Throws `version_exists`. */
export function assertMayTakeOver({ principal }: RequestContext, subject: UploadSubject, version: VersionState, before: readonly UploadFileRow[]): void {
  const user = principal.kind === 'user' ? principal : null
  const mayTakeOver = version.state === 'rejected' || (user !== null && roleIn(user, subject.organization.id) === 'admin')
  if (version.createdBy !== user?.userId && before.length > 0 && !mayTakeOver) {
    throw new ApiError('version_exists', `Somebody else is publishing ${subject.reference}. Publish under another version, or ask an admin of ${subject.organization.name}.`)
  }
}

/** Other files may come in the place of a draft's, a rejected version's, or one's whose verification failed for good. Throws `version_exists`. */
export async function assertReplaceable(tx: Database, subject: UploadSubject, { state }: VersionState): Promise<void> {
  if (state === 'published') throw new ApiError('version_exists', `${subject.reference} is published already, and versions never change. Publish under another version.`)
  const open = state === 'draft' || state === 'rejected'
  if (!open && !(await hasFailed(tx, subject))) {
    throw new ApiError('version_exists', `${subject.reference} is being verified with other files. Wait for it to end, or publish under another version.`)
  }
}

/** The upload that the caller has just drafted. Throws `version_exists` where another publish has replaced its files since. */
export async function describeDraft({ ctx, subject, files }: { ctx: RequestContext; subject: UploadSubject; files: readonly NewFile[] }): Promise<UploadView> {
  const upload = await describeUpload({ ctx, subject })
  if (upload.digest !== (await digestOfFiles(subject.kind, files))) throw replacedError(subject)
  return upload
}

export function replacedError(subject: UploadSubject): ApiError {
  return new ApiError('version_exists', `Another publish has replaced the files of ${subject.reference} meanwhile. Look at it, then publish under another version.`)
}

/** Returns the staged keys to discard after the commit. */
export async function replaceFiles({ tx, subject, before, files }: { tx: Database; subject: UploadSubject; before: readonly UploadFileRow[]; files: readonly NewFile[] }): Promise<string[]> {
  if (before.length > 0) await tx.delete(uploadFiles).where(inArray(uploadFiles.id, before.map(({ id }) => id)))
  const held = await findHeld(tx, subject.organization.id, files)
  const rows = files.map(({ path, size, sha256 }) => ({ ...ownerColumns(subject), path, size, sha256, held: held.has(`${sha256}:${size}`) }))
  for (let i = 0; i < rows.length; i += 500) await tx.insert(uploadFiles).values(rows.slice(i, i + 500))
  return before.map(({ id }) => stagedKey(id))
}

/** Whether the last job of a version that is being verified ended without an answer. */
async function hasFailed(tx: Database, subject: UploadSubject): Promise<boolean> {
  const job = await findJobView(tx, jobsOf(subject))
  return job !== null && (job.state === 'failed' || job.state === 'cancelled')
}
