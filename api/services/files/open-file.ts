import { sliceExtents } from '../../../patch/layout.ts'
import type { RequestContext } from '../../context.ts'
import type { ByteRange } from '../../ports/blob-store.ts'
import type { FoundFile } from './find-file.ts'
import { streamExtents } from './stream-extents.ts'

/** The bytes of a file, or of one range of it, as a stream that reads no faster than it is read. */
export function openFile({ ctx, file, range }: { ctx: Pick<RequestContext, 'blobs' | 'requestId'>; file: FoundFile; range: ByteRange }): Promise<ReadableStream<Uint8Array>> {
  return streamExtents({
    blobs: ctx.blobs,
    extents: sliceExtents(file.extents, range.offset, range.offset + range.length),
    what: `${file.path} of ${file.reference}, request ${ctx.requestId}`,
  })
}
