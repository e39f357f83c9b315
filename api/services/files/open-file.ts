import type { FileExtent } from '../../../patch/extent.ts'
import { sliceExtents } from '../../../patch/layout.ts'
import type { RequestContext } from '../../context.ts'
import { BlobMissingError, blobKey, type ByteRange } from '../../ports/blob-store.ts'
import { openComputed, requireMerger } from '../derivations/open-computed.ts'
import type { FoundFile } from './find-file.ts'

/**
 * The bytes of a file, or of one range of it, as a stream that reads no faster than it is read. With `reuse`, a chunk's
 * memory is written again once the next one is asked for. Throws `unavailable` where bytes cannot be computed here.
 */
export async function openFile({ ctx, file, range, reuse }: { ctx: Pick<RequestContext, 'db' | 'blobs' | 'streamExtents' | 'merger' | 'requestId'>; file: FoundFile; range: ByteRange; reuse: boolean }): Promise<ReadableStream<Uint8Array>> {
  async function open(extent: FileExtent, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const { blob, offset, length } = extent
    if (blob !== null) {
      try {
        return await ctx.blobs.read(blobKey(blob), { offset, length }, { signal, reuse })
      } catch (error) {
        // The tensor may have been set to computed since the extents were read.
        if (!('tensor' in extent) || !(error instanceof BlobMissingError)) throw error
      }
    }
    if (!('tensor' in extent) || !('derivationId' in file.owner)) throw new Error(`${file.path} of ${file.reference} has an extent without bytes`)
    return openComputed({ ctx, derivationId: file.owner.derivationId, extent, signal, reuse })
  }
  const extents = sliceExtents(file.extents, range.offset, range.offset + range.length)
  // Asked before the answer begins, which a later refusal could only cut off.
  if (extents.some(({ blob }) => blob === null)) await requireMerger(ctx, file.reference)
  return ctx.streamExtents({
    open,
    extents,
    what: `${file.path} of ${file.reference}, request ${ctx.requestId}`,
  })
}
