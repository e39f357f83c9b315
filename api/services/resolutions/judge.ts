import { eq } from 'drizzle-orm'
import { modelVersions } from '../../../db/schema.ts'
import { checkCompatibility, type Compatibility } from '../../../patch/compatibility.ts'
import type { LayOptions } from '../../../patch/laying.ts'
import type { ModelManifest } from '../../../patch/manifest.ts'
import type { Lineage } from '../../../patch/resolution.ts'
import type { RequestContext } from '../../context.ts'
import { modelVersionReferences, type FoundModelVersion } from '../models/find.ts'
import { findAncestors } from '../models/lineage.ts'
import type { SelectedPatch } from './select-patches.ts'

export interface Judgement extends Compatibility {
  readonly patch: SelectedPatch
  readonly base: { readonly reference: string; readonly digest: string }
  readonly baseManifest: ModelManifest
  readonly lineage: Lineage
}

/** What design.md's steps of resolution say of one patch on one published target. */
export async function judgePatch({ ctx, patch, target, options = {} }: { ctx: RequestContext; patch: SelectedPatch; target: FoundModelVersion; options?: Partial<LayOptions> | undefined }): Promise<Judgement> {
  const [base] = await ctx.db.select().from(modelVersions).where(eq(modelVersions.id, patch.version.baseVersionId))
  const lineage = await findLineage(ctx, base!.id, target)
  const { targetRange } = patch.version
  const compatibility = checkCompatibility({
    patch: patch.version.manifest!,
    base: { digest: base!.digest!, manifest: base!.manifest! },
    target: { digest: target.version.digest!, manifest: target.version.manifest! },
    lineage,
    options,
    policy: { targetRange, targetVersion: target.version.version, yanked: patch.yanked, deprecated: patch.deprecated },
  })
  const references = await modelVersionReferences(ctx.db, [base!.id])
  return { ...compatibility, patch, base: { reference: references.get(base!.id)!, digest: base!.digest! }, baseManifest: base!.manifest!, lineage }
}

async function findLineage(ctx: RequestContext, baseId: string, target: FoundModelVersion): Promise<Lineage> {
  if (target.version.id === baseId) return { relation: 'same', steps: [] }
  const ancestors = await findAncestors(ctx.db, target.version)
  const depth = ancestors.findIndex((ancestor) => ancestor.id === baseId)
  if (depth < 0) return { relation: 'unrelated', steps: [] }
  // Nearest first: each entry holds the kind of the step that leads from it to what comes before it in the list.
  const descent = [target.version.id, ...ancestors.slice(0, depth).map((ancestor) => ancestor.id)]
  const references = await modelVersionReferences(ctx.db, descent)
  const steps = descent.map((id, index) => ({ version: references.get(id)!, kind: ancestors[index]!.kind })).reverse()
  return { relation: 'descends', steps }
}
