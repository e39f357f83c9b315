import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { discardStaged } from '../blobs/discard.ts'
import { inTransaction } from '../transaction.ts'
import { checkFiles, replaceFiles, type NewFile } from '../uploads/draft.ts'
import { findUploadSubject } from '../uploads/find-subject.ts'
import { lockVersion } from '../uploads/subject.ts'
import { describeUpload, digestOfFiles, readUploadFiles, type UploadPartView } from '../uploads/upload-view.ts'
import { lockHeldJob, sampleKey } from './attempt.ts'

/** Where to PUT the files that an attempt has made; a file that the registry has already has no parts. */
export interface OutputPlan { files: { path: string; parts: UploadPartView[] }[] }

/** What S3 takes in one PUT, and far more than questions and answers have. */
const MAX_SAMPLES_BYTES = 5 * 1024 ** 3

/** Places for what this attempt made, and for nothing else. Throws `stale_attempt`. */
export async function requestOutputs({ ctx, attempt, files }: { ctx: RequestContext; attempt: Attempt; files: readonly NewFile[] }): Promise<OutputPlan> {
  checkFiles(files)
  switch (attempt.kind) {
    case 'evaluate': return planSamples(ctx, attempt, files)
    case 'finetune': case 'evolve': return planVersion(ctx, attempt, files)
    default: throw new ApiError('invalid_request', `A job of the kind ${attempt.kind} has no files to announce: its claim says where its outputs go.`)
  }
}

async function planSamples(ctx: RequestContext, attempt: Attempt, files: readonly NewFile[]): Promise<OutputPlan> {
  await inTransaction(ctx, (tx) => lockHeldJob(tx, attempt))
  const large = files.find(({ size }) => size > MAX_SAMPLES_BYTES)
  if (large !== undefined) throw new ApiError('invalid_request', `${large.path} has ${large.size} bytes; what is recorded of an evaluation has at most ${MAX_SAMPLES_BYTES} a file. Set a limit.`)
  const planned = files.map(async ({ path, size, sha256 }) => {
    const { url, headers } = await ctx.blobs.signPut(sampleKey(attempt, sha256), { size, sha256 })
    return { path, parts: [{ number: 1, offset: 0, length: size, stored: false, method: 'PUT' as const, url, headers: { ...headers } }] }
  })
  return { files: await Promise.all(planned) }
}

/** The files become those of the version that the job makes, as if its publisher had drafted them. */
async function planVersion(ctx: RequestContext, attempt: Attempt, files: readonly NewFile[]): Promise<OutputPlan> {
  const { subject, discard } = await inTransaction(ctx, async (tx) => {
    const subject = await findUploadSubject(tx, await lockHeldJob(tx, attempt))
    const { state } = await lockVersion(tx, subject)
    if (state !== 'draft') throw new ApiError('wrong_state', `${subject.reference} is ${state}: it takes no files now.`)
    const before = await readUploadFiles(tx, subject)
    const same = before.length > 0 && (await digestOfFiles(subject.kind, before)) === (await digestOfFiles(subject.kind, files))
    return { subject, discard: same ? [] : await replaceFiles({ tx, subject, before, files }) }
  })
  await discardStaged(ctx.blobs, discard)
  const upload = await describeUpload({ ctx, subject })
  const parts = new Map(upload.files.map((file) => [file.path, file.parts]))
  return { files: files.map(({ path }) => ({ path, parts: parts.get(path) ?? [] })) }
}
