import { eq, inArray } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs, modelVersions, patchVersions, uploadFiles } from '../../../db/schema.ts'

/** Versions in these states still need what was staged for them. */
const OPEN = ['draft', 'uploaded', 'verifying'] as const

export interface StagedObjects {
  sweep(prefix: 'uploads' | 'attempts', living: ReadonlySet<string>): Promise<void>
}

/** At the start, before anything is staged: discards what no draft and no job can use any more. */
export async function sweepStaged({ db, blobs }: { db: Database; blobs: StagedObjects }): Promise<void> {
  const ofModels = await db.select({ id: uploadFiles.id }).from(uploadFiles).innerJoin(modelVersions, eq(modelVersions.id, uploadFiles.modelVersionId)).where(inArray(modelVersions.state, [...OPEN]))
  const ofPatches = await db.select({ id: uploadFiles.id }).from(uploadFiles).innerJoin(patchVersions, eq(patchVersions.id, uploadFiles.patchVersionId)).where(inArray(patchVersions.state, [...OPEN]))
  await blobs.sweep('uploads', new Set([...ofModels, ...ofPatches].map((row) => row.id)))
  const open = await db.select({ id: jobs.id }).from(jobs).where(inArray(jobs.state, ['queued', 'running']))
  await blobs.sweep('attempts', new Set(open.map((row) => row.id)))
}
