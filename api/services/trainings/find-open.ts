import { and, inArray } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs } from '../../../db/schema.ts'
import { ApiError } from '../../errors.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { jobsOf, type UploadSubject } from '../uploads/subject.ts'

/** The job that is making this version, or null. */
export async function findOpenTraining(db: Database, subject: UploadSubject): Promise<JobRow | null> {
  const [job] = await db.select().from(jobs).where(and(jobsOf(subject), inArray(jobs.kind, ['finetune', 'evolve']), inArray(jobs.state, ['queued', 'running'])))
  return job ?? null
}

/** Throws `version_exists` where a job makes the version: its files are the job's to send. */
export async function assertNotInTraining(db: Database, subject: UploadSubject): Promise<void> {
  const job = await findOpenTraining(db, subject)
  if (job !== null) throw new ApiError('version_exists', `${subject.reference} is being made by the ${job.kind} job ${job.id}. Wait for it to end, or publish under another version.`, { job: job.id })
}
