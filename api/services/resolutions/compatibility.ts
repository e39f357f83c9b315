import { LRUCache } from 'lru-cache'
import { checkCompatibility, type Compatibility, type CompatibilityInput } from '../../../patch/compatibility.ts'
import { canonicalJson } from '../../../patch/derivation.ts'
import type { PatchManifest } from '../../../patch/manifest.ts'

/** Of all that are kept, about 10 MB. */
const MAX_EDITS = 10_000

const kept = new LRUCache<string, Compatibility>({ maxSize: MAX_EDITS, sizeCalculation: ({ edits }) => edits.length + 1 })

/** checkCompatibility, which depends on nothing but its input, so that it is worked out once; a digest stands for its manifest. */
export function compatibilityOf({ patch, ...input }: Omit<CompatibilityInput, 'patch'> & { patch: { digest: string; manifest: PatchManifest } }): Compatibility {
  const { base, target, ...rest } = input
  const key = canonicalJson([patch.digest, base.digest, target.digest, rest])
  const found = kept.get(key)
  if (found !== undefined) return found
  const made = checkCompatibility({ ...input, patch: patch.manifest })
  kept.set(key, made)
  return made
}
