import { asc, eq, type SQL } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { changedTensors, extents, files } from '../../../db/schema.ts'
import type { Extent, FileExtent } from '../../../patch/extent.ts'
import type { VersionOwner } from '../uploads/subject.ts'

export type FileOwner = VersionOwner | { derivationId: string } | { evaluationId: string }

/** The extents of every file of a published version, by path. */
export async function readExtents(db: Database, owner: { modelVersionId: string } | { patchVersionId: string }): Promise<Map<string, Extent[]>> {
  return (await readFileExtents(db, owner)) as Map<string, Extent[]>
}

/** The same of whatever has files. */
export async function readFileExtents(db: Database, owner: FileOwner): Promise<Map<string, FileExtent[]>> {
  const rows = await selectExtents(db, ofOwner(owner))
  const byPath = new Map<string, FileExtent[]>()
  for (const row of rows) {
    const list = byPath.get(row.path) ?? []
    list.push(...toExtents(row))
    byPath.set(row.path, list)
  }
  return byPath
}

/** Files with their extents in order; a file without bytes has one row, and no extent in it. */
export function selectExtents(db: Database, where: SQL) {
  return db
    .select({
      path: files.path, size: files.size, etag: files.etag,
      blob: extents.blob, offset: extents.offset, length: extents.length, tensor: changedTensors.position, tensorBlob: changedTensors.blob,
    })
    .from(files)
    .leftJoin(extents, eq(extents.fileId, files.id))
    .leftJoin(changedTensors, eq(changedTensors.id, extents.changedTensorId))
    .where(where)
    .orderBy(asc(files.path), asc(extents.position))
}

/** The extent of a row of `selectExtents`: one or none. */
export function toExtents({ blob, offset, length, tensor, tensorBlob }: Awaited<ReturnType<typeof selectExtents>>[number]): FileExtent[] {
  if (tensor !== null) return [{ tensor, blob: tensorBlob, offset: offset!, length: length! }]
  return blob === null ? [] : [{ blob, offset: offset!, length: length! }]
}

/** The condition on `files` for those of one owner. */
export function ofOwner(owner: FileOwner): SQL {
  if ('modelVersionId' in owner) return eq(files.modelVersionId, owner.modelVersionId)
  if ('patchVersionId' in owner) return eq(files.patchVersionId, owner.patchVersionId)
  if ('datasetVersionId' in owner) return eq(files.datasetVersionId, owner.datasetVersionId)
  return 'derivationId' in owner ? eq(files.derivationId, owner.derivationId) : eq(files.evaluationId, owner.evaluationId)
}
