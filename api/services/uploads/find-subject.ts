import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { organizations } from '../../../db/schema.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { PACKAGES, type PackageKind } from '../packages.ts'
import type { UploadSubject } from './subject.ts'

/** The version that an ingest job works on, or that a training makes. */
export async function findUploadSubject(db: Database, job: Pick<JobRow, 'id' | 'modelVersionId' | 'patchVersionId' | 'datasetVersionId'>): Promise<UploadSubject> {
  const ids = { model: job.modelVersionId, patch: job.patchVersionId, dataset: job.datasetVersionId }
  const [kind, versionId] = (Object.entries(ids) as [PackageKind, string | null][]).find(([, id]) => id !== null) ?? []
  if (kind === undefined || versionId == null) throw new Error(`job ${job.id} is about no version`)
  const { versions, families, familyId } = PACKAGES[kind]
  const [row] = await db
    .select({ organization: organizations, name: families.name, version: versions.version })
    .from(versions)
    .innerJoin(families, eq(families.id, familyId))
    .innerJoin(organizations, eq(organizations.id, families.organizationId))
    .where(eq(versions.id, versionId))
  return { kind, versionId, organization: row!.organization, reference: `${row!.organization.name}/${row!.name}@${row!.version}` }
}
