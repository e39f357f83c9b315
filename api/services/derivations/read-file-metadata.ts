import type { Extent } from '../../../patch/extent.ts'
import type { ModelManifest } from '../../../patch/manifest.ts'
import { EDGE_HEADER_CAP, headerLength, parseHeader } from '../../../patch/safetensors.ts'
import type { BlobStore } from '../../ports/blob-store.ts'
import { readBytes } from './read-bytes.ts'

/** An embedded server can afford more than an isolate, but no header that fills its memory. */
const HEADER_CAP = 16 * EDGE_HEADER_CAP

/** `__metadata__` of some of a version's safetensors files, read from their headers alone. */
export async function readFileMetadata({ blobs, target, extents, paths }: {
  blobs: BlobStore
  target: ModelManifest
  extents: ReadonlyMap<string, readonly Extent[]>
  paths: ReadonlySet<string>
}): Promise<Map<string, Readonly<Record<string, string>>>> {
  const metadata = new Map<string, Readonly<Record<string, string>>>()
  for (const { path, size } of target.files) {
    if (!paths.has(path)) continue
    const list = extents.get(path)!
    const length = headerLength(await readBytes(blobs, list, 8), size, HEADER_CAP)
    metadata.set(path, parseHeader(await readBytes(blobs, list, length), size, HEADER_CAP).metadata)
  }
  return metadata
}
