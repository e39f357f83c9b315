import { eq, type SQL } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs, modelVersions, patchVersions, uploadFiles } from '../../../db/schema.ts'
import type { OrganizationRow } from '../organizations/find.ts'

export type PublishState = 'draft' | 'uploaded' | 'verifying' | 'published' | 'rejected'
export interface Rejection { code: string; message: string; file?: string; tensor?: string }

/** The version that an upload makes, of a model or of a patch. */
export interface UploadSubject {
  readonly kind: 'model' | 'patch'
  readonly versionId: string
  /** `org/name@version`. */
  readonly reference: string
  readonly organization: OrganizationRow
}

export interface VersionState { state: PublishState; rejection: Rejection[] | null; digest: string | null; createdBy: string }

/** Locks the version's row until the transaction ends, so that of two requests one sees what the other did. */
export async function lockVersion(tx: Database, subject: UploadSubject): Promise<VersionState> {
  const table = subject.kind === 'model' ? modelVersions : patchVersions
  const [row] = await tx
    .select({ state: table.state, rejection: table.rejection, digest: table.digest, createdBy: table.createdBy })
    .from(table)
    .where(eq(table.id, subject.versionId))
    .for('update')
  return row!
}

export async function readVersion(db: Database, subject: UploadSubject): Promise<VersionState> {
  const table = subject.kind === 'model' ? modelVersions : patchVersions
  const [row] = await db
    .select({ state: table.state, rejection: table.rejection, digest: table.digest, createdBy: table.createdBy })
    .from(table)
    .where(eq(table.id, subject.versionId))
  return row!
}

/** The caller holds the row's lock. */
export async function setState(tx: Database, subject: UploadSubject, state: PublishState, rejection: Rejection[] | null = null): Promise<void> {
  const table = subject.kind === 'model' ? modelVersions : patchVersions
  await tx.update(table).set({ state, rejection }).where(eq(table.id, subject.versionId))
}

/** Makes it a draft of this user, without the reasons of an earlier rejection. The caller holds the row's lock. */
export async function reopen(tx: Database, subject: UploadSubject, createdBy: string): Promise<void> {
  const table = subject.kind === 'model' ? modelVersions : patchVersions
  await tx.update(table).set({ state: 'draft', rejection: null, createdBy }).where(eq(table.id, subject.versionId))
}

export function ownerColumns(subject: Pick<UploadSubject, 'kind' | 'versionId'>): { modelVersionId: string } | { patchVersionId: string } {
  return subject.kind === 'model' ? { modelVersionId: subject.versionId } : { patchVersionId: subject.versionId }
}

export function uploadFilesOf(subject: Pick<UploadSubject, 'kind' | 'versionId'>): SQL {
  return eq(subject.kind === 'model' ? uploadFiles.modelVersionId : uploadFiles.patchVersionId, subject.versionId)
}

export function jobsOf(subject: Pick<UploadSubject, 'kind' | 'versionId'>): SQL {
  return eq(subject.kind === 'model' ? jobs.modelVersionId : jobs.patchVersionId, subject.versionId)
}

/** Where the bytes of an upload file are staged. */
export function stagedKey(uploadFileId: string): string {
  return `uploads/${uploadFileId}`
}
