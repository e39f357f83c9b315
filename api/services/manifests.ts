import { eq, getTableColumns } from 'drizzle-orm'
import { LRUCache } from 'lru-cache'
import type { Database } from '../../db/database.ts'
import { modelVersions, patchVersions } from '../../db/schema.ts'
import type { ModelManifest, PatchManifest } from '../../patch/manifest.ts'

/** Of all manifests that are kept, about 10 MB. */
const MAX_TENSORS = 20_000

/**
 * Manifests of published versions, by version id: they never change, and are most of what a version is made of. Who may
 * see a version has been asked of the database by then.
 */
const published = new LRUCache<string, ModelManifest | PatchManifest>({ maxSize: MAX_TENSORS, sizeCalculation: ({ tensors }) => tensors.length + 1 })

function allButManifest<T extends { manifest: unknown }>({ manifest: _, ...columns }: T): Omit<T, 'manifest'> {
  return columns
}

export const modelVersionColumns = allButManifest(getTableColumns(modelVersions))
export const patchVersionColumns = allButManifest(getTableColumns(patchVersions))

type ModelVersionRow = typeof modelVersions.$inferSelect
type PatchVersionRow = typeof patchVersions.$inferSelect

/** The whole row of a model version that was read without its manifest. */
export async function withModelManifest(db: Database, row: Omit<ModelVersionRow, 'manifest'>): Promise<ModelVersionRow> {
  const kept = published.get(row.id) as ModelManifest | undefined
  if (kept !== undefined) return { ...row, manifest: kept }
  const [read] = await db.select({ manifest: modelVersions.manifest }).from(modelVersions).where(eq(modelVersions.id, row.id))
  return keep(row, read?.manifest ?? null)
}

/** The same of a patch version. */
export async function withPatchManifest(db: Database, row: Omit<PatchVersionRow, 'manifest'>): Promise<PatchVersionRow> {
  const kept = published.get(row.id) as PatchManifest | undefined
  if (kept !== undefined) return { ...row, manifest: kept }
  const [read] = await db.select({ manifest: patchVersions.manifest }).from(patchVersions).where(eq(patchVersions.id, row.id))
  return keep(row, read?.manifest ?? null)
}

function keep<Row extends { id: string; state: string }, Manifest extends ModelManifest | PatchManifest>(row: Row, manifest: Manifest | null): Row & { manifest: Manifest | null } {
  if (manifest !== null && row.state === 'published') published.set(row.id, manifest)
  return { ...row, manifest }
}
