import { eq } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import type { Analysis } from '../../../patch/analysis.ts'
import type { RequestContext } from '../../context.ts'
import { findJobView, type JobView } from '../jobs/job-view.ts'
import { modelVersionReferences } from '../models/find.ts'
import { patchVersionReference } from '../patches/find.ts'
import { findVisibleAnalysis } from './find-visible.ts'

interface Version { reference: string; digest: string }

export interface AnalysisView {
  id: string
  state: 'queued' | 'ready' | 'failed'
  patch: Version
  base: Version
  target: Version
  /** Null until it is ready. */
  result: Analysis | null
  /** Address of the picture of it; null until it is ready. */
  picture: string | null
  job: JobView | null
  createdAt: string
  readyAt: string | null
}

/** An analysis, ready or on its way, for whoever may see patch, base and target. */
export async function describeAnalysis({ ctx, input }: { ctx: RequestContext; input: { id: string } }): Promise<AnalysisView> {
  const { analysis, patch, base, target } = await findVisibleAnalysis({ ctx, id: input.id })
  const models = await modelVersionReferences(ctx.db, [base.id, target.id])
  return {
    id: analysis.id,
    state: analysis.state,
    patch: { reference: (await patchVersionReference(ctx.db, patch.id))!, digest: patch.digest },
    base: { reference: models.get(base.id)!, digest: base.digest },
    target: { reference: models.get(target.id)!, digest: target.digest },
    result: analysis.result,
    picture: analysis.state === 'ready' ? `${ctx.publicUrl}/v1/analyses/${analysis.id}/picture.svg` : null,
    job: analysis.jobId === null ? null : await findJobView(ctx.db, eq(jobs.id, analysis.jobId)),
    createdAt: analysis.createdAt.toISOString(),
    readyAt: analysis.readyAt?.toISOString() ?? null,
  }
}
