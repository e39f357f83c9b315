import { and, eq, inArray, or, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { changedTensors, datasets, datasetVersions, derivationPatches, derivations, extents, files, modelVersions, organizations } from '../../../db/schema.ts'
import { modelVersionReferences } from '../models/find.ts'
import { patchVersionReferences } from '../patches/find.ts'

/** What cannot be served whole while a blob is damaged. */
export interface Dependents {
  /** `org/name@version`, sorted. */
  modelVersions: string[]
  patchVersions: string[]
  datasetVersions: string[]
  /** Merged models that hold the blob, or are computed from it. */
  derivations: string[]
  evaluations: string[]
  /** Paths of the files that the blob is part of, each once. */
  paths: string[]
}

/** Whatever a blob is part of, and the merged models that are computed from that. */
export async function findDependents(db: Database, sha256: string): Promise<Dependents> {
  const holders = await db
    .selectDistinct({ modelVersionId: files.modelVersionId, patchVersionId: files.patchVersionId, datasetVersionId: files.datasetVersionId, derivationId: files.derivationId, evaluationId: files.evaluationId, path: files.path })
    .from(files)
    .innerJoin(extents, eq(extents.fileId, files.id))
    .leftJoin(changedTensors, eq(changedTensors.id, extents.changedTensorId))
    .where(or(eq(extents.blob, sha256), eq(changedTensors.blob, sha256)))
  const models = distinct(holders.map(({ modelVersionId }) => modelVersionId))
  const patches = distinct(holders.map(({ patchVersionId }) => patchVersionId))
  const computed = await findComputed(db, models, patches)
  return {
    modelVersions: [...(await modelVersionReferences(db, models)).values()].sort(),
    patchVersions: [...(await patchVersionReferences(db, patches)).values()].sort(),
    datasetVersions: await datasetVersionReferences(db, distinct(holders.map(({ datasetVersionId }) => datasetVersionId))),
    derivations: distinct([...holders.map(({ derivationId }) => derivationId), ...computed]),
    evaluations: distinct(holders.map(({ evaluationId }) => evaluationId)),
    paths: distinct(holders.map(({ path }) => path)),
  }
}

/** Those whose tensors are computed from one of these versions: their target, a patch, or the base of one. */
async function findComputed(db: Database, models: readonly string[], patches: readonly string[]): Promise<string[]> {
  if (models.length + patches.length === 0) return []
  const ofPatches = db.select({ id: derivationPatches.derivationId }).from(derivationPatches).where(inArray(derivationPatches.patchVersionId, [...patches]))
  const digests = db.select({ digest: modelVersions.digest }).from(modelVersions).where(inArray(modelVersions.id, [...models]))
  const reads = [
    ...(patches.length > 0 ? [inArray(derivations.id, ofPatches)] : []),
    ...(models.length > 0 ? [inArray(derivations.targetVersionId, [...models]), sql`exists (select 1 from jsonb_array_elements(${derivations.recipe} -> 'patches') as p where p ->> 'base' in ${digests})`] : []),
  ]
  const rows = await db.select({ id: derivations.id }).from(derivations).where(and(eq(derivations.storage, 'computed'), eq(derivations.state, 'ready'), or(...reads)))
  return rows.map(({ id }) => id)
}

async function datasetVersionReferences(db: Database, ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return []
  const rows = await db
    .select({ organization: organizations.name, name: datasets.name, version: datasetVersions.version })
    .from(datasetVersions)
    .innerJoin(datasets, eq(datasets.id, datasetVersions.datasetId))
    .innerJoin(organizations, eq(organizations.id, datasets.organizationId))
    .where(inArray(datasetVersions.id, [...ids]))
  return rows.map(({ organization, name, version }) => `${organization}/${name}@${version}`).sort()
}

function distinct(values: readonly (string | null)[]): string[] {
  return [...new Set(values)].filter((value) => value !== null).sort()
}
