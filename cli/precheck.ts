import { readAdapter } from '../patch/adapter.ts'
import { adapterEdits } from '../patch/edits.ts'
import type { ModelManifest, PatchManifest } from '../patch/manifest.ts'
import { aboutOwnBase } from '../patch/own-base.ts'
import type { Reason } from '../patch/resolution.ts'
import { CliError, EXIT } from './exit.ts'
import { describeReason } from './reasons.ts'

/**
 * Refuses a patch that cannot be merged at all, or does not lie on the very model that it was trained on, before
 * anything is uploaded. Gives the warnings. Without `base` only the adapter itself is looked at.
 */
export function precheckPatch(patch: PatchManifest, base: ModelManifest | null, baseReference: string): Reason[] {
  const adapter = readAdapter(patch.adapterConfig, patch.tensors)
  // What a merge may be asked for is no fault of the patch.
  const reasons = base === null ? adapter.reasons : adapterEdits(adapter, base, base, { tied: 'untie' }).reasons.map(aboutOwnBase)
  const refusals = reasons.filter(({ severity }) => severity === 'refusal')
  if (refusals.length > 0) {
    throw new CliError(
      EXIT.incompatible, 'incompatible',
      `The patch does not fit ${base === null ? 'any target' : `its base ${baseReference}`}:\n${refusals.map((reason) => `  - ${describeReason(reason)}`).join('\n')}`,
      { details: { reasons: refusals } },
    )
  }
  return reasons.filter(({ severity }) => severity === 'warning')
}
