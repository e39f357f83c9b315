import { asc } from 'drizzle-orm'
import pLimit from 'p-limit'
import type { Database } from '../../../db/database.ts'
import { uploadFiles } from '../../../db/schema.ts'
import { datasetDigest, modelDigest, patchDigest } from '../../../patch/derivation.ts'
import type { RequestContext } from '../../context.ts'
import { findJobView, type JobView } from '../jobs/job-view.ts'
import { partsOf, type PartRange } from './parts.ts'
import { jobsOf, readVersion, stagedKey, uploadFilesOf, type PublishState, type Rejection, type UploadSubject } from './subject.ts'

export type UploadFileRow = typeof uploadFiles.$inferSelect

export interface UploadPartView extends PartRange { stored: boolean; method: 'PUT'; url: string; headers: Record<string, string> }
export interface UploadView {
  reference: string
  state: PublishState
  /** The digest that the version will have. */
  digest: string
  files: { path: string; size: number; sha256: string; held: boolean; parts: UploadPartView[] }[]
  job: JobView | null
  rejection: Rejection[] | null
}

export async function readUploadFiles(db: Database, subject: UploadSubject): Promise<UploadFileRow[]> {
  return db.select().from(uploadFiles).where(uploadFilesOf(subject)).orderBy(asc(uploadFiles.path))
}

const DIGESTS = { model: modelDigest, patch: patchDigest, dataset: datasetDigest }

/** The digest of the version that these files make, once published. */
export function digestOfFiles(kind: UploadSubject['kind'], files: readonly { path: string; size: number; sha256: string }[]): Promise<string> {
  const manifest = files.map(({ path, size, sha256 }) => ({ path, size, etag: sha256 }))
  return DIGESTS[kind](manifest)
}

/** The present state of an upload, with fresh signed URLs for what may still be sent. */
export async function describeUpload({ ctx, subject }: { ctx: RequestContext; subject: UploadSubject }): Promise<UploadView> {
  const version = await readVersion(ctx.db, subject)
  const rows = await readUploadFiles(ctx.db, subject)
  const open = version.state === 'draft'
  const limit = pLimit(16)
  return {
    reference: subject.reference,
    state: version.state,
    digest: version.digest ?? (await digestOfFiles(subject.kind, rows)),
    files: await Promise.all(
      rows.map((row) =>
        limit(async () => ({
          path: row.path,
          size: row.size,
          sha256: row.sha256,
          held: row.held || version.state === 'published',
          parts: open && !row.held ? await describeParts(ctx, row) : [],
        })),
      ),
    ),
    job: await findJobView(ctx.db, jobsOf(subject)),
    rejection: version.rejection,
  }
}

async function describeParts(ctx: RequestContext, row: UploadFileRow): Promise<UploadPartView[]> {
  const key = stagedKey(row.id)
  const ranges = partsOf(row.size)
  const stored = await readStored(ctx, row)
  const signed = ranges.length === 1
    ? [await ctx.blobs.signPut(key, { size: row.size, sha256: row.sha256 })]
    : await ctx.blobs.signParts(key, ranges.map(({ number, length }) => ({ number, size: length })))
  return ranges.map((range, index) => {
    const { url, headers } = signed[index]!
    return { ...range, stored: stored.has(range.number), method: 'PUT', url, headers: { ...headers } }
  })
}

/** Numbers of the parts that have arrived whole; all of them where the object was joined already. */
export async function readStored({ blobs }: Pick<RequestContext, 'blobs'>, { id, size }: Pick<UploadFileRow, 'id' | 'size'>): Promise<Set<number>> {
  const key = stagedKey(id)
  const ranges = partsOf(size)
  if (ranges.length === 1) return new Set((await blobs.size(key)) === size ? [1] : [])
  const staged = await blobs.stagedParts(key)
  if (staged.length === 1 && staged[0]!.size === size) return new Set(ranges.map(({ number }) => number))
  const sizes = new Map(staged.map((part) => [part.number, part.size]))
  return new Set(ranges.filter(({ number, length }) => sizes.get(number) === length).map(({ number }) => number))
}
