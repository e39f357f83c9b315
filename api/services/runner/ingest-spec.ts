import type { RequestContext } from '../../context.ts'
import { blobKey, type SignedRequest } from '../../ports/blob-store.ts'
import type { JobRow } from '../jobs/job-view.ts'
import type { PackageKind } from '../packages.ts'
import { findUploadSubject } from '../uploads/find-subject.ts'
import { stagedKey } from '../uploads/subject.ts'
import { readUploadFiles } from '../uploads/upload-view.ts'

export interface IngestSpec {
  kind: 'ingest'
  subject: PackageKind
  files: { path: string; size: number; sha256: string; get: SignedRequest }[]
}

/** What an ingest job reads: the staged files of one version, and nothing else. */
export async function ingestSpec(ctx: RequestContext, job: JobRow): Promise<IngestSpec> {
  const subject = await findUploadSubject(ctx.db, job)
  const rows = await readUploadFiles(ctx.db, subject)
  const files = rows.map(async (row) => ({
    path: row.path,
    size: row.size,
    sha256: row.sha256,
    get: await ctx.blobs.signGet(row.held ? blobKey(row.sha256) : stagedKey(row.id), null),
  }))
  return { kind: 'ingest', subject: subject.kind, files: await Promise.all(files) }
}
