import { createHash } from 'node:crypto'
import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { evaluations, extents, files } from '../../../db/schema.ts'
import type { EvaluationResult, TaskScore } from '../../../patch/evaluation.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { recordAudit } from '../audit/record.ts'
import { lockBlobs } from '../blobs/lock.ts'
import { promoteStaged } from '../blobs/promote.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { sampleKey } from '../runner/attempt.ts'
import { checkFiles, type NewFile } from '../uploads/draft.ts'
import { selectEvaluations } from './find-visible.ts'

/** What a runner says of an evaluation. */
export interface EvaluateResult {
  readonly scores: readonly TaskScore[]
  /** What it recorded of each question, staged by this attempt. */
  readonly files: readonly NewFile[]
  readonly versions: Readonly<Record<string, string>>
  readonly device: string
  readonly seconds: number
}

export interface PreparedEvaluation { readonly id: string; readonly result: EvaluationResult; readonly files: readonly (NewFile & { readonly key: string })[] }

/** The result as it is stored. Every staged file is hashed: a digest that a runner only claims must never name a blob. */
export async function prepareEvaluation({ ctx, attempt, result }: { ctx: RequestContext; attempt: Attempt; result: EvaluateResult }): Promise<PreparedEvaluation> {
  const [row] = await selectEvaluations(ctx.db).where(eq(evaluations.jobId, attempt.jobId))
  if (row === undefined) throw new ApiError('stale_attempt', 'The evaluation has another job now.')
  checkFiles(result.files)
  const staged = []
  for (const file of result.files) {
    const key = sampleKey(attempt, file.sha256)
    await assertStaged(ctx, key, file)
    staged.push({ ...file, key })
  }
  const measured = { by: ctx.publicUrl, at: ctx.clock.now().toISOString(), versions: result.versions, device: result.device, seconds: result.seconds }
  return {
    id: row.evaluation.id,
    result: { format: 'portllm.evaluation/1', target: row.targetDigest, patch: row.patchDigest, derivation: row.evaluation.derivationId, measured, scores: result.scores },
    files: staged,
  }
}

async function assertStaged(ctx: RequestContext, key: string, { path, size, sha256 }: NewFile): Promise<void> {
  if ((await ctx.blobs.size(key)) !== size) throw new ApiError('upload_incomplete', `The bytes of ${path} have not arrived. PUT them, then complete again.`)
  const hash = createHash('sha256')
  if (size > 0) for await (const chunk of await ctx.blobs.read(key, { offset: 0, length: size })) hash.update(chunk)
  const digest = hash.digest('hex')
  if (digest !== sha256) throw new ApiError('digest_mismatch', `The stored bytes of ${path} have the SHA-256 ${digest}; the result says ${sha256}. Run the job again.`)
}

export async function finishEvaluation({ ctx, tx, job, evaluation: { id, result, files: staged } }: { ctx: RequestContext; tx: Database; job: JobRow; evaluation: PreparedEvaluation }): Promise<void> {
  await lockBlobs(tx, staged)
  await promoteStaged(ctx.blobs, staged)
  if (staged.length > 0) {
    const inserted = await tx.insert(files).values(staged.map(({ path, size, sha256 }) => ({ evaluationId: id, path, size, etag: sha256 }))).returning({ id: files.id, blob: files.etag, size: files.size })
    // A file of no bytes has no extents.
    const parts = inserted.filter(({ size }) => size > 0).map(({ id: fileId, blob, size }) => ({ fileId, position: 0, blob, offset: 0, length: size }))
    if (parts.length > 0) await tx.insert(extents).values(parts)
  }
  await tx.update(evaluations).set({ state: 'ready', result, readyAt: ctx.clock.now() }).where(eq(evaluations.id, id))
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: 'evaluation.measure', subject: id, after: { state: 'ready', scores: result.scores.length } } })
}
