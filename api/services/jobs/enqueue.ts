import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import type { JobKind } from '../../ports/job-queue.ts'
import type { JobRow } from './job-view.ts'

export type JobSubject = { modelVersionId: string } | { patchVersionId: string } | { derivationId: string } | { analysisId: string }

/** Puts a job into the queue, in the caller's transaction. Call `ctx.launcher.wake()` after it has committed. */
export async function enqueueJob({ ctx, tx, kind, organizationId, subject }: {
  ctx: Pick<RequestContext, 'queue' | 'principal'>
  tx: Database
  kind: JobKind
  organizationId: string
  subject: JobSubject
}): Promise<JobRow> {
  const requestedBy = ctx.principal.kind === 'user' ? ctx.principal.userId : null
  const [job] = await tx.insert(jobs).values({ kind, organizationId, requestedBy, ...subject }).returning()
  const { queueId } = await ctx.queue.enqueue(tx, { kind, jobId: job!.id })
  await tx.update(jobs).set({ queueId }).where(eq(jobs.id, job!.id))
  return { ...job!, queueId }
}
