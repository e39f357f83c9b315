import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { datasetVersions, jobs, trainings } from '../../../db/schema.ts'
import type { EvolveSpec, FinetuneSpec, TrainingRecord } from '../../../patch/training.ts'
import { findJobView, type JobView } from '../jobs/job-view.ts'

/** How a job of the registry made a version. */
export interface TrainingView {
  spec: FinetuneSpec | EvolveSpec
  /** What it learns from, where that is a dataset of the registry: `spec.data` names it. */
  datasetDigest: string | null
  /** Null until it is trained. */
  record: TrainingRecord | null
  job: JobView | null
}

/** Null for a version that was uploaded. Whether the caller may see the version is the caller's question. */
export async function describeTraining(db: Database, owner: { modelVersionId: string } | { patchVersionId: string }): Promise<TrainingView | null> {
  const [row] = await db
    .select({ spec: trainings.spec, record: trainings.record, jobId: trainings.jobId, datasetDigest: datasetVersions.digest })
    .from(trainings)
    .leftJoin(datasetVersions, eq(datasetVersions.id, trainings.datasetVersionId))
    .where('modelVersionId' in owner ? eq(trainings.modelVersionId, owner.modelVersionId) : eq(trainings.patchVersionId, owner.patchVersionId))
  return row === undefined ? null : { spec: row.spec, datasetDigest: row.datasetDigest, record: row.record, job: await findJobView(db, eq(jobs.id, row.jobId)) }
}
