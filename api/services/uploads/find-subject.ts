import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { models, modelVersions, organizations, patches, patchVersions } from '../../../db/schema.ts'
import type { JobRow } from '../jobs/job-view.ts'
import type { UploadSubject } from './subject.ts'

/** The version that an ingest job works on. */
export async function findUploadSubject(db: Database, job: Pick<JobRow, 'id' | 'modelVersionId' | 'patchVersionId'>): Promise<UploadSubject> {
  if (job.modelVersionId !== null) {
    const [row] = await db
      .select({ organization: organizations, name: models.name, version: modelVersions.version })
      .from(modelVersions)
      .innerJoin(models, eq(models.id, modelVersions.modelId))
      .innerJoin(organizations, eq(organizations.id, models.organizationId))
      .where(eq(modelVersions.id, job.modelVersionId))
    return { kind: 'model', versionId: job.modelVersionId, organization: row!.organization, reference: `${row!.organization.name}/${row!.name}@${row!.version}` }
  }
  if (job.patchVersionId !== null) {
    const [row] = await db
      .select({ organization: organizations, name: patches.name, version: patchVersions.version })
      .from(patchVersions)
      .innerJoin(patches, eq(patches.id, patchVersions.patchId))
      .innerJoin(organizations, eq(organizations.id, patches.organizationId))
      .where(eq(patchVersions.id, job.patchVersionId))
    return { kind: 'patch', versionId: job.patchVersionId, organization: row!.organization, reference: `${row!.organization.name}/${row!.name}@${row!.version}` }
  }
  throw new Error(`job ${job.id} ingests neither a model nor a patch`)
}
