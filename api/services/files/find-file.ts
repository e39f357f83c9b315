import { and, eq } from 'drizzle-orm'
import { files } from '../../../db/schema.ts'
import type { FileExtent } from '../../../patch/extent.ts'
import { isSafePath } from '../../../patch/file-path.ts'
import { totalLength } from '../../../patch/layout.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { ofOwner, selectExtents, toExtents, type FileOwner } from '../derivations/read-extents.ts'
import { findFileOwner, type FileSubject, type FoundOwner } from './find-owner.ts'

export interface FoundFile {
  readonly path: string
  readonly size: number
  /** Without quotes. */
  readonly etag: string
  /** In order; their lengths add up to `size`. */
  readonly extents: readonly FileExtent[]
  readonly owner: FileOwner
  readonly visibility: 'public' | 'internal'
  /** What it is a file of. */
  readonly reference: string
}

/** One file of a published version, a ready merged model or a ready evaluation. Throws `not_found` and `wrong_state`. */
export async function findFile({ ctx, input }: { ctx: Pick<RequestContext, 'db' | 'immutableDb' | 'principal'>; input: { subject: FileSubject; path: string } }): Promise<FoundFile> {
  return findFileOf({ ctx, owner: await findFileOwner({ ctx, subject: input.subject }), path: input.path })
}

/** The same of an owner that the caller has found, and may read. Throws `not_found`. */
export async function findFileOf({ ctx, owner: { owner, reference, visibility }, path }: { ctx: Pick<RequestContext, 'db' | 'immutableDb'>; owner: FoundOwner; path: string }): Promise<FoundFile> {
  const missing = () => notFound(`The file ${JSON.stringify(path)} of`, reference)
  if (!isSafePath(path)) throw missing()
  // Where a merged model's tensors are kept may change; what was published does not.
  const db = 'derivationId' in owner ? ctx.db : ctx.immutableDb
  const rows = await selectExtents(db, and(ofOwner(owner), eq(files.path, path))!)
  const [first] = rows
  if (first === undefined) throw missing()
  const held = rows.flatMap(toExtents)
  if (totalLength(held) !== first.size) throw new Error(`${path} of ${reference} has ${first.size} bytes, its extents ${totalLength(held)}`)
  return { path, size: first.size, etag: first.etag, extents: held, owner, visibility, reference }
}
