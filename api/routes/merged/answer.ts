import type { Context } from 'hono'
import type { z } from '@hono/zod-openapi'
import type { AppEnv } from '../../app.ts'
import { ApiError } from '../../errors.ts'
import { describeDerivation, type MergedView } from '../../services/derivations/describe.ts'
import { waitForJob } from '../../services/jobs/wait.ts'
import { preferredWait, RETRY_AFTER_SECONDS } from '../prefer-wait.ts'
import type { Merged } from './merged-schema.ts'

/**
 * 200 with the merged model, or 202 with its job; `Prefer: wait=N` waits for it (RFC 7240). With `storage`, it is there
 * only once it is kept like that.
 */
export async function answerMerged(c: Context<AppEnv>, id: string, storage?: MergedView['storage']) {
  const { ctx } = c.var
  const wait = preferredWait(c.req.header('prefer'))
  const isThere = (view: MergedView) => view.state === 'ready' && (storage ?? view.storage) === view.storage
  let merged = await describeDerivation({ ctx, input: { id } })
  if (!isThere(merged) && merged.job !== null && wait > 0) {
    c.header('Preference-Applied', `wait=${wait}`)
    await waitForJob({ ctx, jobId: merged.job.id, seconds: wait, signal: c.req.raw.signal })
    merged = await describeDerivation({ ctx, input: { id } })
  }
  if (isThere(merged)) return c.json(toMerged(merged), 200)
  if (merged.job?.state === 'failed') throw new ApiError('merge_failed', `The merge failed: ${merged.job.failure?.message ?? 'no reason is recorded'} Ask again to start another job.`, { job: merged.job.id })
  const job = merged.job!
  c.header('Location', `/v1/jobs/${job.id}`)
  c.header('Retry-After', String(RETRY_AFTER_SECONDS))
  return c.json({ derivation: id, job }, 202)
}

export function toMerged(view: MergedView): z.infer<typeof Merged> {
  return view
}
