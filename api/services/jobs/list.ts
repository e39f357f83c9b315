import { and, desc, eq, lt, or } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { decodeTimeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { visibleJobs } from './find.ts'
import { selectJobViews, toJobView, type JobRow, type JobView } from './job-view.ts'

/** Newest first. */
export async function listJobs({ ctx, input }: { ctx: RequestContext; input: PageInput & { state?: JobRow['state'] | undefined; kind?: JobRow['kind'] | undefined } }): Promise<Page<JobView>> {
  const after = decodeTimeCursor(input.cursor)
  const rows = await selectJobViews(ctx.db)
    .where(and(
      visibleJobs(ctx),
      input.state === undefined ? undefined : eq(jobs.state, input.state),
      input.kind === undefined ? undefined : eq(jobs.kind, input.kind),
      after === null ? undefined : or(lt(jobs.createdAt, after.at), and(eq(jobs.createdAt, after.at), lt(jobs.id, after.id))),
    ))
    .orderBy(desc(jobs.createdAt), desc(jobs.id))
    .limit(input.limit + 1)
  return toPage(rows, input.limit, ({ job }) => [job.createdAt.toISOString(), job.id], toJobView)
}
