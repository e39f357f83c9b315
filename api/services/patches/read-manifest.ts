import type { PatchManifest } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { findPatchVersion } from './find.ts'

/** Throws `not_found` before the version is published. */
export async function readPatchManifest({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<{ manifest: PatchManifest; isPublic: boolean }> {
  const { patch, version, reference } = await findPatchVersion({ ctx, ...input })
  if (version.manifest === null) throw notFound('The manifest of', reference)
  return { manifest: version.manifest, isPublic: patch.visibility === 'public' }
}
