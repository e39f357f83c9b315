import { newDerivation } from './derivation.ts'
import type { Derivation, DerivationOptions, Rule } from './derivation.ts'
import { readsBase } from './edit.ts'
import type { Edit } from './edit.ts'
import type { AdapterEdits } from './edits.ts'
import type { LayOptions } from './laying.ts'

/** A patch of a merge, laid on the target. */
export interface LaidPatch extends Pick<AdapterEdits, 'edits' | 'untied'> {
  readonly digest: string
  readonly weight: number
  /** Digest of its base, where that was at hand. */
  readonly base: string | null
}

/**
 * The derivation that a merge of these patches is. What was asked for is part of it only where it makes a difference,
 * and the base only where an edit depends on it, so that the same merge has one id. Throws DerivationError.
 */
export function mergeRecipe(target: string, patches: readonly LaidPatch[]): Derivation {
  const edits = patches.flatMap((patch) => patch.edits)
  const options: DerivationOptions = {
    ...(edits.some((edit) => edit.kind === 'replace' && edit.base === null) ? { absolute: 'replace' } : {}),
    ...(patches.some(({ untied }) => untied !== null) ? { tied: 'untie' } : {}),
  }
  const entries = patches.map((patch) => ({ digest: patch.digest, weight: patch.weight, ...(patch.base !== null && patch.edits.some(readsBase) ? { base: patch.base } : {}) }))
  return newDerivation(target, entries, { rules: edits.flatMap(rulesOf), options })
}

/** The options by which a derivation's patches were laid on its target. */
export function layOptions({ options }: Derivation): Partial<LayOptions> {
  return options ?? {}
}

function rulesOf(edit: Edit): Rule[] {
  switch (edit.kind) {
    case 'additive': return edit.initial === null ? ['lora-f32/1'] : ['lora-f32/1', `${edit.initial.method}-f64/1`]
    case 'dora': return ['dora-f32/1']
    case 'dense': case 'replace': return ['absolute-diff/1']
  }
}
