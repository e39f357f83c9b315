import { eq, type SQL } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs, uploadFiles } from '../../../db/schema.ts'
import type { OrganizationRow } from '../organizations/find.ts'
import { PACKAGES, type PackageKind } from '../packages.ts'

export type PublishState = 'draft' | 'uploaded' | 'verifying' | 'published' | 'rejected'
export interface Rejection { code: string; message: string; file?: string; tensor?: string }

/** The version that an upload makes. */
export interface UploadSubject {
  readonly kind: PackageKind
  readonly versionId: string
  /** `org/name@version`. */
  readonly reference: string
  readonly organization: OrganizationRow
}

export interface VersionState { state: PublishState; rejection: Rejection[] | null; digest: string | null; createdBy: string }

/** Locks the version's row until the transaction ends, so that of two requests one sees what the other did. */
export async function lockVersion(tx: Database, subject: Pick<UploadSubject, 'kind' | 'versionId'>): Promise<VersionState> {
  const { versions: table } = PACKAGES[subject.kind]
  const [row] = await tx
    .select({ state: table.state, rejection: table.rejection, digest: table.digest, createdBy: table.createdBy })
    .from(table)
    .where(eq(table.id, subject.versionId))
    .for('update')
  return row!
}

export async function readVersion(db: Database, subject: UploadSubject): Promise<VersionState> {
  const { versions: table } = PACKAGES[subject.kind]
  const [row] = await db
    .select({ state: table.state, rejection: table.rejection, digest: table.digest, createdBy: table.createdBy })
    .from(table)
    .where(eq(table.id, subject.versionId))
  return row!
}

/** The caller holds the row's lock. */
export async function setState(tx: Database, subject: UploadSubject, state: PublishState, rejection: Rejection[] | null = null): Promise<void> {
  const { versions: table } = PACKAGES[subject.kind]
  await tx.update(table).set({ state, rejection }).where(eq(table.id, subject.versionId))
}

/** Makes it a draft of this user, without the reasons of an earlier rejection. The caller holds the row's lock. */
export async function reopen(tx: Database, subject: UploadSubject, createdBy: string): Promise<void> {
  const { versions: table } = PACKAGES[subject.kind]
  await tx.update(table).set({ state: 'draft', rejection: null, createdBy }).where(eq(table.id, subject.versionId))
}

const OWNER_COLUMNS = { model: 'modelVersionId', patch: 'patchVersionId', dataset: 'datasetVersionId' } as const

/** The column that names the version, in whatever belongs to one. */
export type VersionOwner = { modelVersionId: string } | { patchVersionId: string } | { datasetVersionId: string }

export function ownerColumns({ kind, versionId }: Pick<UploadSubject, 'kind' | 'versionId'>): VersionOwner {
  return { [OWNER_COLUMNS[kind]]: versionId } as VersionOwner
}

export function uploadFilesOf({ kind, versionId }: Pick<UploadSubject, 'kind' | 'versionId'>): SQL {
  return eq(uploadFiles[OWNER_COLUMNS[kind]], versionId)
}

export function jobsOf({ kind, versionId }: Pick<UploadSubject, 'kind' | 'versionId'>): SQL {
  return eq(jobs[OWNER_COLUMNS[kind]], versionId)
}

/** Where the bytes of an upload file are staged. */
export function stagedKey(uploadFileId: string): string {
  return `uploads/${uploadFileId}`
}
