import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { datasetVersions, extents, files, modelVersions, patchVersions } from '../../../db/schema.ts'
import type { VersionManifest } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { lockBlobs } from '../blobs/lock.ts'
import { promoteStaged } from '../blobs/promote.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { movePatchTags } from '../patches/move-tags.ts'
import { checkPatchBase } from './check-patch-base.ts'
import { lockVersion, ownerColumns, setState, stagedKey, type Rejection, type UploadSubject } from './subject.ts'
import { findUploadSubject } from './find-subject.ts'
import { digestOfFiles, readUploadFiles, type UploadFileRow } from './upload-view.ts'

export type IngestResult =
  | { readonly manifest: VersionManifest; readonly readme: string | null }
  | { readonly rejection: readonly Rejection[] }

const CHUNK = 500

/**
 * What an ingest job found, made true in the transaction that completes the job: the version becomes `published`,
 * with its blobs, files and extents, or `rejected`, also where a patch does not fit its base. The state is compared
 * and set, so it happens once.
 * Returns the staged keys to discard after the commit. Throws `wrong_state`, or `invalid_request` for a manifest
 * that is not of the files that were uploaded.
 */
export async function finishIngest({ ctx, tx, job, result }: { ctx: RequestContext; tx: Database; job: JobRow; result: IngestResult }): Promise<{ discard: string[] }> {
  const subject = await findUploadSubject(tx, job)
  const { state } = await lockVersion(tx, subject)
  if (state !== 'verifying') throw new ApiError('wrong_state', `${subject.reference} is ${state}, not verifying: its ingest cannot end now.`)
  const rows = await readUploadFiles(tx, subject)
  const discard = rows.map((row) => stagedKey(row.id))
  const reject = async (rejection: readonly Rejection[]) => {
    await setState(tx, subject, 'rejected', [...rejection])
    await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: `${subject.kind}-version.reject`, subject: subject.reference, before: { state }, after: { state: 'rejected', rejection } } })
    return { discard }
  }
  if ('rejection' in result) return reject(result.rejection)
  assertManifest(subject, rows, result.manifest)
  const misfits = result.manifest.format === 'portllm.patch/1' ? await checkPatchBase({ tx, patchVersionId: subject.versionId, manifest: result.manifest }) : []
  if (misfits.length > 0) return reject(misfits)
  await storeFiles(ctx, tx, subject, rows)
  const digest = await publish(ctx, tx, subject, result)
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: `${subject.kind}-version.publish`, subject: subject.reference, before: { state }, after: { state: 'published', digest } } })
  return { discard }
}

function assertManifest(subject: UploadSubject, rows: readonly UploadFileRow[], manifest: VersionManifest): void {
  const format = `portllm.${subject.kind}/1`
  if (manifest.format !== format) throw new ApiError('invalid_request', `The manifest of ${subject.reference} must have the format ${format}, not ${manifest.format}.`)
  const found = new Map(manifest.files.map((file) => [file.path, file]))
  const same = found.size === rows.length && manifest.files.length === rows.length && rows.every((row) => found.get(row.path)?.etag === row.sha256 && found.get(row.path)?.size === row.size)
  if (!same) throw new ApiError('invalid_request', `The manifest of ${subject.reference} does not list exactly the files that were uploaded.`)
}

async function storeFiles(ctx: RequestContext, tx: Database, subject: UploadSubject, rows: readonly UploadFileRow[]): Promise<void> {
  await lockBlobs(tx, rows)
  await promoteStaged(ctx.blobs, rows.filter(({ held }) => !held).map(({ id, sha256, size }) => ({ key: stagedKey(id), sha256, size })))
  for (let i = 0; i < rows.length; i += CHUNK) {
    const chunk = rows.slice(i, i + CHUNK)
    const inserted = await tx
      .insert(files)
      .values(chunk.map((row) => ({ ...ownerColumns(subject), path: row.path, size: row.size, etag: row.sha256 })))
      .returning({ id: files.id, blob: files.etag, size: files.size })
    // A file of no bytes has no extents.
    const parts = inserted.filter((file) => file.size > 0).map((file) => ({ fileId: file.id, position: 0, blob: file.blob, offset: 0, length: file.size }))
    if (parts.length > 0) await tx.insert(extents).values(parts)
  }
}

async function publish(ctx: RequestContext, tx: Database, subject: UploadSubject, { manifest, readme }: { manifest: VersionManifest; readme: string | null }): Promise<string> {
  const digest = await digestOfFiles(subject.kind, manifest.files.map(({ path, size, etag }) => ({ path, size, sha256: etag })))
  const published = { state: 'published' as const, digest, publishedAt: ctx.clock.now(), rejection: null }
  switch (manifest.format) {
    case 'portllm.model/1':
      await tx.update(modelVersions).set({ ...published, manifest }).where(eq(modelVersions.id, subject.versionId))
      break
    case 'portllm.patch/1':
      await tx.update(patchVersions).set({ ...published, manifest }).where(eq(patchVersions.id, subject.versionId))
      await movePatchTags({ tx, patchVersionId: subject.versionId, readme })
      break
    case 'portllm.dataset/1':
      await tx.update(datasetVersions).set({ ...published, manifest }).where(eq(datasetVersions.id, subject.versionId))
  }
  return digest
}
