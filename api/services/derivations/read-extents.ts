import { asc, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { extents, files } from '../../../db/schema.ts'
import type { Extent } from '../../../patch/extent.ts'

export type FileOwner = { modelVersionId: string } | { patchVersionId: string } | { derivationId: string }

/** The extents of every file of a version or merged model, by path. */
export async function readExtents(db: Database, owner: FileOwner): Promise<Map<string, Extent[]>> {
  const where =
    'modelVersionId' in owner ? eq(files.modelVersionId, owner.modelVersionId)
    : 'patchVersionId' in owner ? eq(files.patchVersionId, owner.patchVersionId)
    : eq(files.derivationId, owner.derivationId)
  const rows = await db
    .select({ path: files.path, blob: extents.blob, offset: extents.offset, length: extents.length })
    .from(files)
    .leftJoin(extents, eq(extents.fileId, files.id))
    .where(where)
    .orderBy(asc(files.path), asc(extents.position))
  const byPath = new Map<string, Extent[]>()
  for (const { path, blob, offset, length } of rows) {
    const list = byPath.get(path) ?? []
    // A file without bytes has no extents.
    if (blob !== null) list.push({ blob, offset: offset!, length: length! })
    byPath.set(path, list)
  }
  return byPath
}
