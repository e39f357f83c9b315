import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { modelVersions, patchVersions } from '../../../db/schema.ts'
import { AdapterError } from '../../../patch/adapter.ts'
import { checkCompatibility } from '../../../patch/compatibility.ts'
import type { PatchManifest } from '../../../patch/manifest.ts'
import { aboutOwnBase } from '../../../patch/own-base.ts'
import type { Reason } from '../../../patch/resolution.ts'
import { modelVersionReference } from '../models/find.ts'
import type { Rejection } from './subject.ts'

/**
 * Why the patch does not go onto the very version that it says it was trained on: no target would ever take it.
 * Empty where it does.
 */
export async function checkPatchBase({ tx, patchVersionId, manifest }: { tx: Database; patchVersionId: string; manifest: PatchManifest }): Promise<Rejection[]> {
  const [row] = await tx
    .select({ id: modelVersions.id, digest: modelVersions.digest, manifest: modelVersions.manifest })
    .from(patchVersions)
    .innerJoin(modelVersions, eq(modelVersions.id, patchVersions.baseVersionId))
    .where(eq(patchVersions.id, patchVersionId))
  const base = { digest: row!.digest!, manifest: row!.manifest! }
  const reference = await modelVersionReference(tx, row!.id)
  try {
    // What a merge may be asked for is no fault of the patch.
    const { resolution } = checkCompatibility({ patch: manifest, base, target: base, lineage: { relation: 'same', steps: [] }, options: { tied: 'untie' } })
    return resolution.reasons.filter(({ severity }) => severity === 'refusal').map((reason) => describeMisfit(`${reference}`, aboutOwnBase(reason)))
  } catch (error) {
    if (error instanceof AdapterError) return [{ code: error.code, message: error.message, file: 'adapter_config.json' }]
    throw error
  }
}

function describeMisfit(base: string, { code, message, expected, found, tensor }: Reason): Rejection {
  const comparison = expected !== undefined && found !== undefined ? ` (expected ${expected}, found ${found})` : ''
  return { code, message: `The patch does not fit its base ${base}: ${message}${comparison}`, ...(tensor === undefined ? {} : { tensor }) }
}
