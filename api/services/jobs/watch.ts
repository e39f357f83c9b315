import type { RequestContext } from '../../context.ts'
import { findJob } from './find.ts'
import type { JobView } from './job-view.ts'
import { hasEnded } from './wait.ts'

const POLL_MS = 200

/**
 * The job whenever it has changed, to its end. Visibility is checked at every look, so a right that is taken away ends it;
 * so does the end of this server, and whoever watches asks another.
 */
export async function* watchJob({ ctx, input, signal }: { ctx: RequestContext; input: { id: string }; signal: AbortSignal }): AsyncGenerator<JobView> {
  for (let last = ''; !signal.aborted && !ctx.stopping?.aborted; ) {
    const job = await findJob({ ctx, input })
    const text = JSON.stringify(job)
    if (text !== last) yield job
    if (hasEnded(job.state)) return
    last = text
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}
