import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { isJobKind, type JobKind } from '../../ports/job-queue.ts'
import type { VersionOwner } from '../uploads/subject.ts'
import type { JobRow } from './job-view.ts'

export type JobSubject = VersionOwner | { derivationId: string } | { analysisId: string } | { evaluationId: string }

interface NewJob {
  ctx: Pick<RequestContext, 'queue' | 'principal'>
  tx: Database
  kind: JobKind
  organizationId: string
  subject: JobSubject
}

/** Puts a job into the queue, in the caller's transaction. Call `ctx.launcher.wake` after it has committed. */
export async function enqueueJob(input: NewJob): Promise<JobRow> {
  const job = await createJob(input)
  return { ...job, queueId: await sendJob({ ...input, job }) }
}

/** A job that waits outside the queue until something else has ended, which then calls `sendJob`. */
export async function createJob({ ctx, tx, kind, organizationId, subject }: NewJob): Promise<JobRow> {
  const requestedBy = ctx.principal.kind === 'user' ? ctx.principal.userId : null
  const [job] = await tx.insert(jobs).values({ kind, organizationId, requestedBy, ...subject }).returning()
  return job!
}

export async function sendJob({ ctx, tx, job }: { ctx: Pick<RequestContext, 'queue'>; tx: Database; job: Pick<JobRow, 'id' | 'kind'> }): Promise<string> {
  if (!isJobKind(job.kind)) throw new Error(`no runner takes jobs of the kind ${job.kind}`)
  const { queueId } = await ctx.queue.enqueue(tx, { kind: job.kind, jobId: job.id })
  await tx.update(jobs).set({ queueId }).where(eq(jobs.id, job.id))
  return queueId
}
