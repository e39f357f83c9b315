import { and, eq, inArray, or } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { blobs, datasets, datasetVersions, extents, files, models, modelVersions, patches, patchVersions } from '../../../db/schema.ts'

const CHUNK = 500

/**
 * Which of these contents the organization holds already, in something it has published. Never across
 * organizations: to name a digest must not be a way to another's bytes.
 */
export async function findHeld(db: Database, organizationId: string, wanted: readonly { sha256: string; size: number }[]): Promise<Set<string>> {
  const held = new Set<string>()
  for (let i = 0; i < wanted.length; i += CHUNK) {
    const chunk = wanted.slice(i, i + CHUNK)
    const rows = await db
      .selectDistinct({ sha256: blobs.sha256, size: blobs.size })
      .from(blobs)
      .innerJoin(extents, eq(extents.blob, blobs.sha256))
      .innerJoin(files, eq(files.id, extents.fileId))
      .leftJoin(modelVersions, eq(modelVersions.id, files.modelVersionId))
      .leftJoin(models, eq(models.id, modelVersions.modelId))
      .leftJoin(patchVersions, eq(patchVersions.id, files.patchVersionId))
      .leftJoin(patches, eq(patches.id, patchVersions.patchId))
      .leftJoin(datasetVersions, eq(datasetVersions.id, files.datasetVersionId))
      .leftJoin(datasets, eq(datasets.id, datasetVersions.datasetId))
      .where(
        and(
          inArray(blobs.sha256, chunk.map((file) => file.sha256)),
          // An uploaded file is one extent and has its content's digest as its etag.
          eq(files.etag, blobs.sha256),
          or(eq(models.organizationId, organizationId), eq(patches.organizationId, organizationId), eq(datasets.organizationId, organizationId)),
        ),
      )
    for (const row of rows) held.add(`${row.sha256}:${row.size}`)
  }
  return held
}
