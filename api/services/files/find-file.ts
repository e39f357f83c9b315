import { and, eq } from 'drizzle-orm'
import { files } from '../../../db/schema.ts'
import type { FileExtent } from '../../../patch/extent.ts'
import { isSafePath } from '../../../patch/file-path.ts'
import { totalLength } from '../../../patch/layout.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { ofOwner, selectExtents, toExtents, type FileOwner } from '../derivations/read-extents.ts'
import { findFileOwner, type FileSubject } from './find-owner.ts'

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

/** One file of a published version or a ready merged model. Throws `not_found` and `wrong_state`. */
export async function findFile({ ctx, input }: { ctx: Pick<RequestContext, 'db' | 'principal'>; input: { subject: FileSubject; path: string } }): Promise<FoundFile> {
  const { owner, reference, visibility } = await findFileOwner({ ctx, subject: input.subject })
  const missing = () => notFound(`The file ${JSON.stringify(input.path)} of`, reference)
  if (!isSafePath(input.path)) throw missing()
  const rows = await selectExtents(ctx.db, and(ofOwner(owner), eq(files.path, input.path))!)
  const [first] = rows
  if (first === undefined) throw missing()
  const held = rows.flatMap(toExtents)
  if (totalLength(held) !== first.size) throw new Error(`${input.path} of ${reference} has ${first.size} bytes, its extents ${totalLength(held)}`)
  return { path: input.path, size: first.size, etag: first.etag, extents: held, owner, visibility, reference }
}
