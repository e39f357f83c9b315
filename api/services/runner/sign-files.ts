import { asc } from 'drizzle-orm'
import { files } from '../../../db/schema.ts'
import type { FileExtent } from '../../../patch/extent.ts'
import type { RequestContext } from '../../context.ts'
import type { SignedRequest } from '../../ports/blob-store.ts'
import { ofOwner, readFileExtents, type FileOwner } from '../derivations/read-extents.ts'
import { cutExtents } from '../files/plan.ts'
import { signExtent } from './merge-spec.ts'

/** A file that a job reads whole: its extents in order. */
export interface SignedFile {
  path: string
  size: number
  /** Of its bytes; null where only what it is made of is known. */
  sha256: string | null
  extents: { get: SignedRequest; length: number }[]
}

/**
 * Every file of a published version or a ready merged model. `computed` makes the request for a range of a file whose bytes
 * the registry computes.
 */
export async function signFiles({ ctx, owner, computed }: { ctx: RequestContext; owner: FileOwner; computed: (path: string, offset: number, length: number) => SignedRequest }): Promise<SignedFile[]> {
  const rows = await ctx.db.select({ path: files.path, size: files.size, etag: files.etag }).from(files).where(ofOwner(owner)).orderBy(asc(files.path))
  const extents = await readFileExtents(ctx.db, owner)
  return Promise.all(rows.map(async ({ path, size, etag }) => {
    const all = extents.get(path) ?? []
    let at = 0
    const signed = cutExtents(all).map(async ({ blob, offset, length }) => {
      const start = at
      at += length
      return { get: blob === null ? computed(path, start, length) : await signExtent(ctx, { blob, offset, length }), length }
    })
    return { path, size, sha256: isWholeBlob(all, etag) ? etag : null, extents: await Promise.all(signed) }
  }))
}

/** An uploaded file is one blob and has its digest as its ETag; a merge leaves such files as they are. */
function isWholeBlob([first, ...more]: readonly FileExtent[], etag: string): boolean {
  return more.length === 0 && (first === undefined || first.blob === etag)
}
