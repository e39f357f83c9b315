import type { Checkpoint } from './checkpoint.ts'
import { isTargetDtype, TARGET_DTYPES } from './dtype.ts'
import type { ManifestTensor } from './manifest.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/** What stands in a tensor's name for `weight` where a second tensor scales it (DeepSeek, compressed-tensors, ComfyUI). */
const SCALES = ['weight_scale_inv', 'weight_scale', 'scale_weight', 'scale']

/** The refusal for a tensor of the target that nothing can be added to, or null. */
export function unusableTarget({ match }: Checkpoint, { name, dtype }: ManifestTensor): Reason | null {
  if (!isTargetDtype(dtype)) {
    return refusal('target-dtype', `The target's ${name} is stored as ${dtype}, which a patch cannot be added to.`, { tensor: name, expected: TARGET_DTYPES.join(', '), found: dtype, remedy: 'Publish the target in one of these dtypes.' })
  }
  const owner = name.slice(0, name.lastIndexOf('.') + 1)
  const scale = dtype.startsWith('F8') ? SCALES.find((ending) => match(`${owner}${ending}`).names.length > 0) : undefined
  if (scale === undefined) return null
  return refusal('quantized-target', `The target's ${name} is stored as ${dtype} and scaled by ${owner}${scale}, so that a patch cannot be added to it.`, {
    tensor: name, expected: 'weights without scales', found: `${owner}${scale}`, remedy: 'Publish and name the version of the model that is not quantized.',
  })
}
