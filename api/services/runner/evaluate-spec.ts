import { eq } from 'drizzle-orm'
import { evaluations } from '../../../db/schema.ts'
import type { EvaluationSpec } from '../../../patch/evaluation.ts'
import type { RequestContext } from '../../context.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import type { SignedRequest } from '../../ports/blob-store.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { signFiles, type SignedFile } from './sign-files.ts'

export interface EvaluateSpec extends Omit<EvaluationSpec, 'how' | 'tasks'> {
  kind: 'evaluate'
  evaluation: string
  /** The target's files, or the merged model's. */
  model: SignedFile[]
  /** Of the patch that PEFT applies while the model runs; null where there is none, or it is merged. */
  adapter: SignedFile[] | null
  tasks: string[]
}

/** What an evaluate job reads: one model, and the patch where it is not merged. */
export async function evaluateSpec(ctx: RequestContext, job: JobRow, _attempt: Attempt, token: string): Promise<EvaluateSpec> {
  const [row] = await ctx.db.select().from(evaluations).where(eq(evaluations.id, job.evaluationId!))
  const { id, targetVersionId, patchVersionId, derivationId, spec: { how, tasks, ...rest } } = row!
  const sign = (owner: Parameters<typeof signFiles>[0]['owner']) => signFiles({ ctx, owner, computed: (path, offset, length) => attemptFile(ctx, job.id, token, { path, offset, length }) })
  return {
    kind: 'evaluate', evaluation: id, ...rest, tasks: [...tasks],
    model: await sign(derivationId === null ? { modelVersionId: targetVersionId } : { derivationId }),
    adapter: how === 'peft' ? await sign({ patchVersionId: patchVersionId! }) : null,
  }
}

/** Bytes that the registry computes come from its own route, for this attempt alone. */
function attemptFile({ publicUrl }: RequestContext, jobId: string, token: string, { path, offset, length }: { path: string; offset: number; length: number }): SignedRequest {
  return {
    method: 'GET',
    url: `${publicUrl}/v1/runner/jobs/${jobId}/files/${path.split('/').map(encodeURIComponent).join('/')}`,
    headers: { Authorization: `Bearer ${token}`, Range: `bytes=${offset}-${offset + length - 1}` },
  }
}
