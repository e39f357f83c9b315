import { asc, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { derivationPatches, derivations, modelVersions, patchVersions } from '../../../db/schema.ts'
import { checkCompatibility } from '../../../patch/compatibility.ts'
import type { Derivation } from '../../../patch/derivation.ts'
import type { Extent } from '../../../patch/extent.ts'
import type { ModelManifest, PatchManifest } from '../../../patch/manifest.ts'
import { planMerge as planTensors, type PlannedPatch, type TensorPlan } from '../../../patch/merge-plan.ts'
import { readExtents } from './read-extents.ts'

export interface MergePlan {
  readonly recipe: Derivation
  readonly targetVersionId: string
  readonly target: ModelManifest
  readonly targetExtents: ReadonlyMap<string, readonly Extent[]>
  /** Extents of each patch's files, in derivation order. */
  readonly patchExtents: readonly ReadonlyMap<string, readonly Extent[]>[]
  /** Every tensor that the merge changes, in the order of the target's manifest. */
  readonly changed: readonly TensorPlan[]
}

/** What a derivation comes to, from its recipe alone: the same plan whenever and wherever it is made. */
export async function planMerge({ db, derivationId }: { db: Database; derivationId: string }): Promise<MergePlan> {
  const [row] = await db
    .select({ recipe: derivations.recipe, target: modelVersions })
    .from(derivations)
    .innerJoin(modelVersions, eq(modelVersions.id, derivations.targetVersionId))
    .where(eq(derivations.id, derivationId))
  if (row === undefined) throw new Error(`there is no derivation ${derivationId}`)
  const target = row.target.manifest!
  const patches: PlannedPatch[] = []
  const patchExtents: ReadonlyMap<string, readonly Extent[]>[] = []
  for (const { version, weight } of await readPatches(db, derivationId)) {
    const edits = await editsOf(db, version, { digest: row.target.digest!, manifest: target })
    patches.push({ manifest: version.manifest!, edits, weight, base: null })
    patchExtents.push(await readExtents(db, { patchVersionId: version.id }))
  }
  return {
    recipe: row.recipe,
    targetVersionId: row.target.id,
    target,
    targetExtents: await readExtents(db, { modelVersionId: row.target.id }),
    patchExtents,
    changed: planTensors({ target, patches }),
  }
}

async function readPatches(db: Database, derivationId: string) {
  return db
    .select({ version: patchVersions, weight: derivationPatches.weight })
    .from(derivationPatches)
    .innerJoin(patchVersions, eq(patchVersions.id, derivationPatches.patchVersionId))
    .where(eq(derivationPatches.derivationId, derivationId))
    .orderBy(asc(derivationPatches.position))
}

/** The edits only: lineage and policy were judged when the merge was asked for, and change no byte. */
async function editsOf(db: Database, version: { baseVersionId: string; manifest: PatchManifest | null }, target: { digest: string; manifest: ModelManifest }) {
  const [base] = await db.select({ digest: modelVersions.digest, manifest: modelVersions.manifest }).from(modelVersions).where(eq(modelVersions.id, version.baseVersionId))
  const { edits, resolution } = checkCompatibility({
    patch: version.manifest!, base: { digest: base!.digest!, manifest: base!.manifest! }, target, lineage: { relation: 'descends', steps: [] },
  })
  if (edits.length === 0) throw new Error(`a patch of the derivation does not fit any more: ${resolution.reasons[0]?.message}`)
  return edits
}
