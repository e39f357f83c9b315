import { eq } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'

const POLL_MS = 100
const ENDED = new Set(['succeeded', 'failed', 'cancelled'])

export function hasEnded(state: string): boolean {
  return ENDED.has(state)
}

/** Waits until a job has ended, at most `seconds`. */
export async function waitForJob({ ctx, jobId, seconds, signal }: { ctx: RequestContext; jobId: string; seconds: number; signal: AbortSignal }): Promise<void> {
  const deadline = Date.now() + seconds * 1000
  while (Date.now() < deadline && !signal.aborted && !ctx.stopping?.aborted) {
    const [job] = await ctx.db.select({ state: jobs.state }).from(jobs).where(eq(jobs.id, jobId))
    if (job === undefined || hasEnded(job.state)) return
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}
