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

/** What else never changes of a published model version: what it is, and what it came from. */
export interface ModelLink { readonly id: string; readonly digest: string; readonly parentId: string | null; readonly parentKind: string | null }
const links = new LRUCache<string, ModelLink>({ max: 10_000 })

/** A published model version that another published one names as its parent or its base. */
export async function modelLink(db: Database, id: string): Promise<ModelLink> {
  const kept = links.get(id)
  if (kept !== undefined) return kept
  const [row] = await db
    .select({ id: modelVersions.id, digest: modelVersions.digest, parentId: modelVersions.parentId, parentKind: modelVersions.parentKind, state: modelVersions.state })
    .from(modelVersions)
    .where(eq(modelVersions.id, id))
  const { state, digest, ...rest } = row!
  const link = { ...rest, digest: digest! }
  if (state === 'published') links.set(id, link)
  return link
}

/** The manifest of a published model version. */
export async function modelManifest(db: Database, id: string): Promise<ModelManifest> {
  return (await withModelManifest(db, { id, state: 'published' })).manifest!
}

function allButManifest<T extends { manifest: unknown }>({ manifest: _, ...columns }: T): Omit<T, 'manifest'> {
  return columns
}

export const modelVersionColumns = allButManifest(getTableColumns(modelVersions))
export const patchVersionColumns = allButManifest(getTableColumns(patchVersions))

type ModelVersionRow = typeof modelVersions.$inferSelect
type PatchVersionRow = typeof patchVersions.$inferSelect

/** The whole of a model version that was read without its manifest. */
export async function withModelManifest<Row extends Pick<ModelVersionRow, 'id' | 'state'>>(db: Database, row: Row): Promise<Row & Pick<ModelVersionRow, 'manifest'>> {
  return { ...row, manifest: (await manifestOf(db, modelVersions, row)) as ModelManifest | null }
}

/** The same of a patch version. */
export async function withPatchManifest<Row extends Pick<PatchVersionRow, 'id' | 'state'>>(db: Database, row: Row): Promise<Row & Pick<PatchVersionRow, 'manifest'>> {
  return { ...row, manifest: (await manifestOf(db, patchVersions, row)) as PatchManifest | null }
}

async function manifestOf(db: Database, versions: typeof modelVersions | typeof patchVersions, { id, state }: { id: string; state: string }): Promise<ModelManifest | PatchManifest | null> {
  const kept = published.get(id)
  if (kept !== undefined) return kept
  const [read] = await db.select({ manifest: versions.manifest }).from(versions).where(eq(versions.id, id))
  const manifest = read?.manifest ?? null
  if (manifest !== null && state === 'published') published.set(id, manifest)
  return manifest
}
