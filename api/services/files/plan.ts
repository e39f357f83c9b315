import { asc } from 'drizzle-orm'
import pLimit from 'p-limit'
import { files } from '../../../db/schema.ts'
import type { FileExtent } from '../../../patch/extent.ts'
import type { RequestContext } from '../../context.ts'
import { blobKey, SIGNED_REQUEST_SECONDS } from '../../ports/blob-store.ts'
import { requireMerger } from '../derivations/open-computed.ts'
import { ofOwner, readFileExtents, type FileOwner } from '../derivations/read-extents.ts'
import { findFileOwner, type FileSubject } from './find-owner.ts'

/** Extents are cut to this, so that one large blob can be fetched in parallel and resumed in the middle. */
export const PLAN_EXTENT_BYTES = 64 * 1024 * 1024

export interface PlannedExtent {
  /** Null where the registry computes the bytes: the request is for its own route of the file. */
  readonly blob: string | null
  readonly offset: number
  readonly length: number
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

/**
 * Every file as requests, one for each extent, in order: signed ones for what is stored, and for what is computed those
 * of the registry's own route, to be sent with the caller's token. Throws `not_found`, `wrong_state` and `unavailable`.
 */
export async function planFiles({ ctx, input }: { ctx: RequestContext; input: { subject: FileSubject } }): Promise<FilePlan> {
  const { owner } = await findFileOwner({ ctx, subject: input.subject })
  const rows = await ctx.db.select({ path: files.path, size: files.size, etag: files.etag }).from(files).where(ofOwner(owner)).orderBy(asc(files.path))
  const extents = await readFileExtents(ctx.db, owner)
  // Taken before the first signature, and rounded down as signatures are: no URL ends before it.
  const expires = Math.floor(ctx.clock.now().getTime() / 1000) + SIGNED_REQUEST_SECONDS
  const limit = pLimit(16)
  const sign = async (blob: string, offset: number, length: number): Promise<PlannedExtent> => {
    const { url, headers } = await ctx.blobs.signGet(blobKey(blob), { offset, length })
    return { blob, offset, length, method: 'GET', url, headers: { ...headers } }
  }
  const planFile = async (path: string): Promise<PlannedExtent[]> => {
    let at = 0
    return Promise.all(cutExtents(extents.get(path) ?? []).map(({ blob, offset, length }) => {
      const start = at
      at += length
      return blob === null ? computed(ctx, owner, path, start, length) : limit(() => sign(blob, offset, length))
    }))
  }
  const computes = [...extents.values()].some((list) => list.some(({ blob }) => blob === null))
  if (computes && 'derivationId' in owner) await requireMerger(ctx, owner.derivationId)
  return {
    files: await Promise.all(rows.map(async (row) => ({ ...row, extents: await planFile(row.path) }))),
    expiresAt: new Date(expires * 1000).toISOString(),
  }
}

function computed({ publicUrl }: RequestContext, owner: FileOwner, path: string, offset: number, length: number): PlannedExtent {
  if (!('derivationId' in owner)) throw new Error(`${path} has an extent without bytes`)
  const url = `${publicUrl}/v1/derivations/${owner.derivationId}/files/${path.split('/').map(encodeURIComponent).join('/')}`
  return { blob: null, offset, length, method: 'GET', url, headers: { Range: `bytes=${offset}-${offset + length - 1}` } }
}

/** The same bytes in extents of at most `PLAN_EXTENT_BYTES`, none of them empty. */
export function cutExtents<E extends FileExtent>(extents: readonly E[]): E[] {
  return extents.flatMap((extent) =>
    Array.from({ length: Math.ceil(extent.length / PLAN_EXTENT_BYTES) }, (_, index) => {
      const start = index * PLAN_EXTENT_BYTES
      return { ...extent, offset: extent.offset + start, length: Math.min(PLAN_EXTENT_BYTES, extent.length - start) }
    }),
  )
}
