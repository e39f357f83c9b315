import { and, inArray, isNotNull } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { Dependencies, RequestContext } from '../../context.ts'
import { isJobKind } from '../../ports/job-queue.ts'
import { lockJob } from '../runner/attempt.ts'
import { endFailed } from '../runner/fail-job.ts'
import { inTransaction } from '../transaction.ts'
import { hasEnded } from './wait.ts'

/** Ends jobs whose last attempt was lost without a word, and sees to it that waiting ones have a runner. */
export async function reapJobs({ ctx }: { ctx: Dependencies }): Promise<void> {
  const registry: RequestContext = { ...ctx, principal: { kind: 'anonymous' }, requestId: 'reaper' }
  for (const id of await ctx.queue.takeDead()) {
    await inTransaction(ctx, async (tx) => {
      const job = await lockJob(tx, id)
      if (hasEnded(job.state)) return
      await endFailed(registry, tx, job, { code: 'runner_lost', message: `The runner was lost in each of ${job.attempt} attempts. Look at its log, then ask again.`, retryable: true })
    })
  }
  // What is not in the queue yet waits for another job, not for a runner.
  const open = await ctx.db.selectDistinct({ kind: jobs.kind }).from(jobs).where(and(inArray(jobs.state, ['queued', 'running']), isNotNull(jobs.queueId)))
  ctx.launcher.wake(open.map(({ kind }) => kind).filter(isJobKind))
}
