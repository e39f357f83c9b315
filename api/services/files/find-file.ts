import { and, asc, eq, type SQL } from 'drizzle-orm'
import { extents, files } from '../../../db/schema.ts'
import type { Extent } from '../../../patch/extent.ts'
import { isSafePath } from '../../../patch/file-path.ts'
import { totalLength } from '../../../patch/layout.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import type { FileOwner } from '../derivations/read-extents.ts'
import { findFileOwner, type FileSubject } from './find-owner.ts'

export interface FoundFile {
  readonly path: string
  readonly size: number
  /** Without quotes. */
  readonly etag: string
  /** In order; their lengths add up to `size`. */
  readonly extents: readonly Extent[]
  readonly visibility: 'public' | 'internal'
  /** What it is a file of. */
  readonly reference: string
}

/** One file of a published version or a ready merged model. Throws `not_found` and `wrong_state`. */
export async function findFile({ ctx, input }: { ctx: Pick<RequestContext, 'db' | 'principal'>; input: { subject: FileSubject; path: string } }): Promise<FoundFile> {
  const { owner, reference, visibility } = await findFileOwner({ ctx, subject: input.subject })
  const missing = () => notFound(`The file ${JSON.stringify(input.path)} of`, reference)
  if (!isSafePath(input.path)) throw missing()
  const rows = await ctx.db
    .select({ size: files.size, etag: files.etag, blob: extents.blob, offset: extents.offset, length: extents.length })
    .from(files)
    .leftJoin(extents, eq(extents.fileId, files.id))
    .where(and(ofOwner(owner), eq(files.path, input.path)))
    .orderBy(asc(extents.position))
  const [first] = rows
  if (first === undefined) throw missing()
  // A file without bytes has no extents.
  const held = rows.flatMap(({ blob, offset, length }) => (blob === null ? [] : [{ blob, offset: offset!, length: length! }]))
  if (totalLength(held) !== first.size) throw new Error(`${input.path} of ${reference} has ${first.size} bytes, its extents ${totalLength(held)}`)
  return { path: input.path, size: first.size, etag: first.etag, extents: held, visibility, reference }
}

/** The condition on `files` for those of one owner. */
export function ofOwner(owner: FileOwner): SQL {
  if ('modelVersionId' in owner) return eq(files.modelVersionId, owner.modelVersionId)
  return 'patchVersionId' in owner ? eq(files.patchVersionId, owner.patchVersionId) : eq(files.derivationId, owner.derivationId)
}
