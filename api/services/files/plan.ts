import { asc } from 'drizzle-orm'
import pLimit from 'p-limit'
import { files } from '../../../db/schema.ts'
import type { Extent } from '../../../patch/extent.ts'
import type { RequestContext } from '../../context.ts'
import { blobKey, SIGNED_REQUEST_SECONDS } from '../../ports/blob-store.ts'
import { readExtents } from '../derivations/read-extents.ts'
import { findFileOwner, type FileSubject } from './find-owner.ts'
import { ofOwner } from './find-file.ts'

/** Extents are cut to this, so that one large blob can be fetched in parallel and resumed in the middle. */
export const PLAN_EXTENT_BYTES = 64 * 1024 * 1024

export interface PlannedExtent extends Extent {
  readonly method: 'GET'
  readonly url: string
  /** To be sent with it. */
  readonly headers: Record<string, string>
}

export interface FilePlan {
  files: { path: string; size: number; etag: string; extents: PlannedExtent[] }[]
  /** When the URLs stop working, ISO 8601. */
  expiresAt: string
}

/** Every file as signed requests, one for each extent, in order. Throws `not_found` and `wrong_state`. */
export async function planFiles({ ctx, input }: { ctx: RequestContext; input: { subject: FileSubject } }): Promise<FilePlan> {
  const { owner } = await findFileOwner({ ctx, subject: input.subject })
  const rows = await ctx.db.select({ path: files.path, size: files.size, etag: files.etag }).from(files).where(ofOwner(owner)).orderBy(asc(files.path))
  const extents = await readExtents(ctx.db, owner)
  // Taken before the first signature, and rounded down as signatures are: no URL ends before it.
  const expires = Math.floor(ctx.clock.now().getTime() / 1000) + SIGNED_REQUEST_SECONDS
  const limit = pLimit(16)
  const sign = (extent: Extent) =>
    limit(async (): Promise<PlannedExtent> => {
      const { url, headers } = await ctx.blobs.signGet(blobKey(extent.blob), { offset: extent.offset, length: extent.length })
      return { ...extent, method: 'GET', url, headers: { ...headers } }
    })
  return {
    files: await Promise.all(rows.map(async (row) => ({ ...row, extents: await Promise.all(cutExtents(extents.get(row.path) ?? []).map(sign)) }))),
    expiresAt: new Date(expires * 1000).toISOString(),
  }
}

/** The same bytes in extents of at most `PLAN_EXTENT_BYTES`, none of them empty. */
export function cutExtents(extents: readonly Extent[]): Extent[] {
  return extents.flatMap(({ blob, offset, length }) =>
    Array.from({ length: Math.ceil(length / PLAN_EXTENT_BYTES) }, (_, index) => {
      const start = index * PLAN_EXTENT_BYTES
      return { blob, offset: offset + start, length: Math.min(PLAN_EXTENT_BYTES, length - start) }
    }),
  )
}
