import type { Extent } from '../../../patch/extent.ts'
import { sliceExtents } from '../../../patch/layout.ts'
import { blobKey, type BlobStore } from '../../ports/blob-store.ts'

/** The first `length` bytes of a published file, in memory. */
export async function readBytes(blobs: BlobStore, extents: readonly Extent[], length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  let at = 0
  for (const extent of sliceExtents(extents, 0, length)) {
    for await (const chunk of await blobs.read(blobKey(extent.blob), { offset: extent.offset, length: extent.length })) {
      bytes.set(chunk, at)
      at += chunk.length
    }
  }
  return bytes
}
