import { eq, sql, type SQL } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database } from '../../../db/database.ts'
import { analyses, datasets, datasetVersions, evaluations, jobs, models, modelVersions, organizations, patches, patchVersions, type JobFailure, type JobProgress } from '../../../db/schema.ts'

export type JobRow = typeof jobs.$inferSelect

export interface JobView {
  id: string
  kind: JobRow['kind']
  state: JobRow['state']
  attempt: number
  progress: JobProgress | null
  failure: JobFailure | null
  subject: { kind: 'model-version' | 'patch-version' | 'dataset-version' | 'derivation' | 'analysis' | 'evaluation'; reference: string }
  createdAt: string
  startedAt: string | null
  endedAt: string | null
}

const modelOwner = alias(organizations, 'model_owner')
const patchOwner = alias(organizations, 'patch_owner')
const datasetOwner = alias(organizations, 'dataset_owner')

/** Jobs as the API shows them, with the reference of what they work on. Whether the caller may see them is the caller's question. */
export function selectJobViews(db: Database) {
  return db
    .select({
      job: jobs,
      model: sql<string | null>`${modelOwner.name} || '/' || ${models.name} || '@' || ${modelVersions.version}`,
      patch: sql<string | null>`${patchOwner.name} || '/' || ${patches.name} || '@' || ${patchVersions.version}`,
      dataset: sql<string | null>`${datasetOwner.name} || '/' || ${datasets.name} || '@' || ${datasetVersions.version}`,
    })
    .from(jobs)
    .leftJoin(analyses, eq(analyses.id, jobs.analysisId))
    .leftJoin(evaluations, eq(evaluations.id, jobs.evaluationId))
    .leftJoin(modelVersions, eq(modelVersions.id, sql`coalesce(${jobs.modelVersionId}, ${analyses.targetVersionId}, ${evaluations.targetVersionId})`))
    .leftJoin(models, eq(models.id, modelVersions.modelId))
    .leftJoin(modelOwner, eq(modelOwner.id, models.organizationId))
    .leftJoin(patchVersions, eq(patchVersions.id, sql`coalesce(${jobs.patchVersionId}, ${analyses.patchVersionId}, ${evaluations.patchVersionId})`))
    .leftJoin(patches, eq(patches.id, patchVersions.patchId))
    .leftJoin(patchOwner, eq(patchOwner.id, patches.organizationId))
    .leftJoin(datasetVersions, eq(datasetVersions.id, jobs.datasetVersionId))
    .leftJoin(datasets, eq(datasets.id, datasetVersions.datasetId))
    .leftJoin(datasetOwner, eq(datasetOwner.id, datasets.organizationId))
    .$dynamic()
}

interface JobViewRow { job: JobRow; model: string | null; patch: string | null; dataset: string | null }

export function toJobView(row: JobViewRow): JobView {
  const { job } = row
  return {
    id: job.id,
    kind: job.kind,
    state: job.state,
    attempt: job.attempt,
    progress: job.progress,
    failure: job.failure,
    subject: subjectOf(row),
    createdAt: job.createdAt.toISOString(),
    startedAt: job.startedAt?.toISOString() ?? null,
    endedAt: job.endedAt?.toISOString() ?? null,
  }
}

function subjectOf({ job, model, patch, dataset }: JobViewRow): JobView['subject'] {
  if (job.analysisId !== null) return { kind: 'analysis', reference: `${patch} on ${model}` }
  if (job.evaluationId !== null) return { kind: 'evaluation', reference: patch === null ? model! : `${patch} on ${model}` }
  if (job.modelVersionId !== null) return { kind: 'model-version', reference: model! }
  if (job.patchVersionId !== null) return { kind: 'patch-version', reference: patch! }
  if (job.datasetVersionId !== null) return { kind: 'dataset-version', reference: dataset! }
  return { kind: 'derivation', reference: job.derivationId! }
}

/** The newest job that the condition picks, or null. */
export async function findJobView(db: Database, where: SQL): Promise<JobView | null> {
  const [row] = await selectJobViews(db).where(where).orderBy(sql`${jobs.createdAt} desc`).limit(1)
  return row === undefined ? null : toJobView(row)
}
