import { asc, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { derivationPatches, derivations, modelVersions, patchVersions } from '../../../db/schema.ts'
import { checkCompatibility, type Compatibility } from '../../../patch/compatibility.ts'
import type { Derivation } from '../../../patch/derivation.ts'
import { readsBase } from '../../../patch/edit.ts'
import type { Extent } from '../../../patch/extent.ts'
import type { ModelManifest } from '../../../patch/manifest.ts'
import { planMerge as planTensors, untiedHead, type PlannedPatch, type TensorPlan } from '../../../patch/merge-plan.ts'
import { layOptions } from '../../../patch/recipe.ts'
import type { UntiedHead } from '../../../patch/tied-embeddings.ts'
import { readExtents } from './read-extents.ts'

export interface MergePlan {
  readonly recipe: Derivation
  readonly targetVersionId: string
  readonly target: ModelManifest
  readonly targetExtents: ReadonlyMap<string, readonly Extent[]>
  /** Extents of each patch's files, in derivation order. */
  readonly patchExtents: readonly ReadonlyMap<string, readonly Extent[]>[]
  /** Extents of the files of each patch's base, where the merge reads it; else null. */
  readonly baseExtents: readonly (ReadonlyMap<string, readonly Extent[]> | null)[]
  /** Every tensor that the merge changes, in the order of the target's manifest, and last the head that it adds. */
  readonly changed: readonly TensorPlan[]
  /** The head that is added where the embeddings are untied. */
  readonly untied: UntiedHead | null
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
  const baseExtents: (ReadonlyMap<string, readonly Extent[]> | null)[] = []
  for (const { version, weight } of await readPatches(db, derivationId)) {
    const base = await readBase(db, version)
    const { edits, untied } = layPatch(version, base, { digest: row.target.digest!, manifest: target }, row.recipe)
    patches.push({ manifest: version.manifest!, edits, untied, weight, base: base.manifest })
    patchExtents.push(await readExtents(db, { patchVersionId: version.id }))
    baseExtents.push(edits.some(readsBase) ? await readExtents(db, { modelVersionId: version.baseVersionId }) : null)
  }
  return {
    recipe: row.recipe,
    targetVersionId: row.target.id,
    target,
    targetExtents: await readExtents(db, { modelVersionId: row.target.id }),
    patchExtents,
    baseExtents,
    changed: planTensors({ target, patches }),
    untied: untiedHead(patches),
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

type PatchVersion = Pick<typeof patchVersions.$inferSelect, 'baseVersionId' | 'manifest'>
interface ModelState { readonly digest: string; readonly manifest: ModelManifest }

async function readBase(db: Database, { baseVersionId }: PatchVersion): Promise<ModelState> {
  const [base] = await db.select({ digest: modelVersions.digest, manifest: modelVersions.manifest }).from(modelVersions).where(eq(modelVersions.id, baseVersionId))
  return { digest: base!.digest!, manifest: base!.manifest! }
}

/** Without lineage and policy, which were judged when the merge was asked for, and change no byte. */
function layPatch(version: PatchVersion, base: ModelState, target: ModelState, recipe: Derivation): Compatibility {
  const laid = checkCompatibility({ patch: version.manifest!, base, target, lineage: { relation: 'descends', steps: [] }, options: layOptions(recipe) })
  if (laid.resolution.verdict === 'incompatible') throw new Error(`a patch of the derivation does not fit any more: ${laid.resolution.reasons[0]?.message}`)
  return laid
}
