import { asc, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { derivationPatches, derivations, modelVersions, patchVersions } from '../../../db/schema.ts'
import { checkCompatibility } from '../../../patch/compatibility.ts'
import { effectiveScale, type Derivation } from '../../../patch/derivation.ts'
import type { AdditiveEdit } from '../../../patch/edit.ts'
import type { Extent } from '../../../patch/extent.ts'
import type { ManifestTensor, ModelManifest, PatchManifest } from '../../../patch/manifest.ts'
import { readExtents } from './read-extents.ts'

export interface PlannedPatch {
  readonly tensors: ReadonlyMap<string, ManifestTensor>
  readonly extents: ReadonlyMap<string, readonly Extent[]>
}

export interface PlannedTensor {
  readonly tensor: ManifestTensor
  /** In derivation order; `scale` is the float32 factor with the patch's weight in it. */
  readonly addends: readonly { readonly patch: PlannedPatch; readonly edit: AdditiveEdit; readonly scale: number }[]
}

export interface MergePlan {
  readonly recipe: Derivation
  readonly targetVersionId: string
  readonly target: ModelManifest
  readonly targetExtents: ReadonlyMap<string, readonly Extent[]>
  /** Every tensor that the merge changes, in the order of the target's manifest. */
  readonly changed: readonly PlannedTensor[]
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
  const addends = new Map<string, { patch: PlannedPatch; edit: AdditiveEdit; scale: number }[]>()
  for (const { version, weight } of await readPatches(db, derivationId)) {
    const manifest = version.manifest!
    const patch = { tensors: new Map(manifest.tensors.map((tensor) => [tensor.name, tensor])), extents: await readExtents(db, { patchVersionId: version.id }) }
    for (const edit of await editsOf(db, version, { digest: row.target.digest!, manifest: target })) {
      const list = addends.get(edit.target) ?? []
      list.push({ patch, edit, scale: effectiveScale(weight, edit.scale) })
      addends.set(edit.target, list)
    }
  }
  return {
    recipe: row.recipe,
    targetVersionId: row.target.id,
    target,
    targetExtents: await readExtents(db, { modelVersionId: row.target.id }),
    changed: target.tensors.flatMap((tensor) => (addends.has(tensor.name) ? [{ tensor, addends: addends.get(tensor.name)! }] : [])),
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
