import { eq, inArray } from 'drizzle-orm'
import { jobs, modelVersions, patchVersions, uploadFiles } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { discardStaged } from '../blobs/discard.ts'

/** Versions in these states still need what was staged for them. */
const OPEN = ['draft', 'uploaded', 'verifying'] as const

/**
 * At the start: discards what no draft and no job can use any more. What is staged is listed first: whatever another
 * server stages meanwhile is not among it, or has its row by the time that the rows are read.
 */
export async function sweepStaged({ ctx: { db, blobs } }: { ctx: Pick<RequestContext, 'db' | 'blobs'> }): Promise<void> {
  await blobs.tidy()
  const [uploaded, attempted] = [await blobs.stagedNames('uploads'), await blobs.stagedNames('attempts')]
  const ofModels = await db.select({ id: uploadFiles.id }).from(uploadFiles).innerJoin(modelVersions, eq(modelVersions.id, uploadFiles.modelVersionId)).where(inArray(modelVersions.state, [...OPEN]))
  const ofPatches = await db.select({ id: uploadFiles.id }).from(uploadFiles).innerJoin(patchVersions, eq(patchVersions.id, uploadFiles.patchVersionId)).where(inArray(patchVersions.state, [...OPEN]))
  const ofJobs = await db.select({ id: jobs.id }).from(jobs).where(inArray(jobs.state, ['queued', 'running']))
  const living = new Set([...ofModels, ...ofPatches, ...ofJobs].map(({ id }) => id))
  const dead = [...uploaded.map((name) => ({ folder: 'uploads', name })), ...attempted.map((name) => ({ folder: 'attempts', name }))].filter(({ name }) => !living.has(name))
  await discardStaged(blobs, dead.map(({ folder, name }) => `${folder}/${name}`))
}
