import type { Extent } from '../../../patch/extent.ts'
import type { LayoutInput } from '../../../patch/layout.ts'
import type { ModelManifest } from '../../../patch/manifest.ts'
import type { UntiedHead } from '../../../patch/tied-embeddings.ts'
import { untieTexts } from '../../../patch/untied-texts.ts'
import type { BlobStore } from '../../ports/blob-store.ts'
import { readBytes } from './read-bytes.ts'

/** The head that a merge adds, with the texts of the target that name it or say that there is none; ingest has read them whole. */
export async function readUntiedTexts({ blobs, target, extents, untied }: {
  blobs: BlobStore
  target: ModelManifest
  extents: ReadonlyMap<string, readonly Extent[]>
  untied: UntiedHead
}): Promise<NonNullable<LayoutInput['untied']>> {
  const texts = new Map<string, string>()
  for (const path of untieTexts(target, untied.source)) {
    const { size } = target.files.find((file) => file.path === path)!
    texts.set(path, new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await readBytes(blobs, extents.get(path)!, size)))
  }
  return { ...untied, texts }
}
