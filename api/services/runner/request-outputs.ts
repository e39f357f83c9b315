import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { inTransaction } from '../transaction.ts'
import { checkFiles, type NewFile } from '../uploads/draft.ts'
import type { UploadPartView } from '../uploads/upload-view.ts'
import { lockHeldJob, sampleKey } from './attempt.ts'

/** Where to PUT the files that an attempt has made. */
export interface OutputPlan { files: { path: string; parts: UploadPartView[] }[] }

/** What S3 takes in one PUT, and far more than questions and answers have. */
const MAX_SAMPLES_BYTES = 5 * 1024 ** 3

/** Places for what this attempt made, and for nothing else. Throws `stale_attempt`. */
export async function requestOutputs({ ctx, attempt, files }: { ctx: RequestContext; attempt: Attempt; files: readonly NewFile[] }): Promise<OutputPlan> {
  checkFiles(files)
  await inTransaction(ctx, (tx) => lockHeldJob(tx, attempt))
  if (attempt.kind !== 'evaluate') throw new ApiError('invalid_request', `A job of the kind ${attempt.kind} has no files to announce: its claim says where its outputs go.`)
  const large = files.find(({ size }) => size > MAX_SAMPLES_BYTES)
  if (large !== undefined) throw new ApiError('invalid_request', `${large.path} has ${large.size} bytes; what is recorded of an evaluation has at most ${MAX_SAMPLES_BYTES} a file. Set a limit.`)
  const planned = files.map(async ({ path, size, sha256 }) => {
    const { url, headers } = await ctx.blobs.signPut(sampleKey(attempt, sha256), { size, sha256 })
    return { path, parts: [{ number: 1, offset: 0, length: size, stored: false, method: 'PUT' as const, url, headers: { ...headers } }] }
  })
  return { files: await Promise.all(planned) }
}
