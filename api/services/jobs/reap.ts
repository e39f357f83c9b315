import { and, eq, inArray, isNotNull } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { isJobKind } from '../../ports/job-queue.ts'
import { endFailed } from '../runner/fail-job.ts'
import { inTransaction } from '../transaction.ts'
import { hasEnded } from './wait.ts'

/**
 * Ends jobs whose last attempt was lost without a word, and sees to it that waiting ones have a runner. Any number of
 * processes may do so at once: each lost job is handed to one of them, and to another if that one dies before it is done.
 */
export async function reapJobs({ ctx }: { ctx: Pick<Dependencies, 'db' | 'queue' | 'launcher' | 'clock'> }): Promise<void> {
  const registry = { ...ctx, principal: { kind: 'anonymous' }, requestId: 'reaper' } as const
  for (const dead of await ctx.queue.takeDead()) {
    await inTransaction(ctx, async (tx) => {
      const [job] = await tx.select().from(jobs).where(eq(jobs.id, dead.jobId)).for('update')
      if (job !== undefined && !hasEnded(job.state)) {
        await endFailed(registry, tx, job, { code: 'runner_lost', message: `The runner was lost in each of ${job.attempt} attempts. Look at its log, then ask again.`, retryable: true })
      }
      await ctx.queue.settleDead(tx, dead)
    })
  }
  // What is not in the queue yet waits for another job, not for a runner.
  const open = await ctx.db.selectDistinct({ kind: jobs.kind }).from(jobs).where(and(inArray(jobs.state, ['queued', 'running']), isNotNull(jobs.queueId)))
  ctx.launcher.wake(open.map(({ kind }) => kind).filter(isJobKind))
}
