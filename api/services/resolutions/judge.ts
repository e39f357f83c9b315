import type { Compatibility } from '../../../patch/compatibility.ts'
import type { LayOptions } from '../../../patch/laying.ts'
import type { ModelManifest } from '../../../patch/manifest.ts'
import type { Lineage } from '../../../patch/resolution.ts'
import type { RequestContext } from '../../context.ts'
import { modelLink, modelManifest } from '../manifests.ts'
import { modelVersionReferences, type FoundModelVersion } from '../models/find.ts'
import { findAncestors } from '../models/lineage.ts'
import { compatibilityOf } from './compatibility.ts'
import type { SelectedPatch } from './select-patches.ts'

export interface Judgement extends Compatibility {
  readonly patch: SelectedPatch
  readonly base: { readonly reference: string; readonly digest: string }
  readonly baseManifest: ModelManifest
  readonly lineage: Lineage
}

/** What design.md's steps of resolution say of one patch on one published target. */
export async function judgePatch({ ctx, patch, target, options = {} }: { ctx: RequestContext; patch: SelectedPatch; target: FoundModelVersion; options?: Partial<LayOptions> | undefined }): Promise<Judgement> {
  const baseId = patch.version.baseVersionId
  const [base, ancestors] = await Promise.all([modelLink(ctx.db, baseId), target.version.id === baseId ? [] : findAncestors(ctx.db, target.version)])
  const depth = ancestors.findIndex((ancestor) => ancestor.id === baseId)
  // Nearest first: each entry holds the kind of the step that leads from it to what comes before it in the list.
  const descent = depth < 0 ? [] : [target.version.id, ...ancestors.slice(0, depth).map((ancestor) => ancestor.id)]
  const [baseManifest, references] = await Promise.all([modelManifest(ctx.db, baseId), modelVersionReferences(ctx.db, [baseId, ...descent])])
  const lineage: Lineage = target.version.id === baseId
    ? { relation: 'same', steps: [] }
    : depth < 0
      ? { relation: 'unrelated', steps: [] }
      : { relation: 'descends', steps: descent.map((id, index) => ({ version: references.get(id)!, kind: ancestors[index]!.kind })).reverse() }
  const { targetRange } = patch.version
  const compatibility = compatibilityOf({
    patch: { digest: patch.version.digest!, manifest: patch.version.manifest! },
    base: { digest: base.digest, manifest: baseManifest },
    target: { digest: target.version.digest!, manifest: target.version.manifest! },
    lineage,
    options,
    policy: { targetRange, targetVersion: target.version.version, yanked: patch.yanked, deprecated: patch.deprecated },
  })
  return { ...compatibility, patch, base: { reference: references.get(baseId)!, digest: base.digest }, baseManifest, lineage }
}
