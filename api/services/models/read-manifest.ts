import type { ModelManifest } from '../../../patch/manifest.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { findModelVersion } from './find.ts'

/** Throws `not_found` before the version is published. */
export async function readModelManifest({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<{ manifest: ModelManifest; isPublic: boolean }> {
  const { model, version, reference } = await findModelVersion({ ctx, ...input })
  if (version.manifest === null) throw notFound('The manifest of', reference)
  return { manifest: version.manifest, isPublic: model.visibility === 'public' }
}
