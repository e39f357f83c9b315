import { and, eq, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { datasets, datasetVersions } from '../../../db/schema.ts'
import { checkModelVersion, checkName } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { discardStaged } from '../blobs/discard.ts'
import { findOrganization } from '../organizations/find.ts'
import { inTransaction } from '../transaction.ts'
import { checkFiles, describeDraft, setDraftFiles, type NewFile } from '../uploads/draft.ts'
import type { UploadSubject } from '../uploads/subject.ts'
import type { UploadView } from '../uploads/upload-view.ts'
import type { DatasetRow } from './find.ts'

export interface DraftDatasetVersion {
  organization: string
  name: string
  version: string
  description?: string | undefined
  visibility?: 'public' | 'internal' | undefined
  files: NewFile[]
}

/** Makes a draft, or finds it again: `created` tells which. The family comes into being with its first version. */
export async function draftDatasetVersion({ ctx, input }: { ctx: RequestContext; input: DraftDatasetVersion }): Promise<{ created: boolean; upload: UploadView }> {
  const organization = await findOrganization({ ctx, name: input.organization })
  assertMayPublish(ctx.principal, organization)
  checkName(input.name)
  checkModelVersion(input.version)
  checkFiles(input.files)
  const { userId } = ctx.principal
  const { created, subject, discard } = await inTransaction(ctx, async (tx) => {
    const dataset = await findOrCreateDataset(tx, organization.id, input)
    const [inserted] = await tx.insert(datasetVersions).values({ datasetId: dataset.id, version: input.version, createdBy: userId }).onConflictDoNothing().returning()
    const [row] = inserted ? [inserted] : await tx.select().from(datasetVersions).where(and(eq(datasetVersions.datasetId, dataset.id), eq(sql`lower(${datasetVersions.version})`, input.version.toLowerCase())))
    const subject: UploadSubject = { kind: 'dataset', versionId: row!.id, reference: `${organization.name}/${dataset.name}@${row!.version}`, organization }
    return { created: inserted !== undefined, subject, discard: await setDraftFiles({ ctx, tx, subject, files: input.files }) }
  })
  await discardStaged(ctx.blobs, discard)
  return { created, upload: await describeDraft({ ctx, subject, files: input.files }) }
}

async function findOrCreateDataset(tx: Database, organizationId: string, { name, description = '', visibility = 'public' }: DraftDatasetVersion): Promise<DatasetRow> {
  await tx.insert(datasets).values({ organizationId, name, description, visibility }).onConflictDoNothing()
  const [row] = await tx.select().from(datasets).where(and(eq(datasets.organizationId, organizationId), eq(sql`lower(${datasets.name})`, name.toLowerCase())))
  return row!
}
