import { count, inArray, min, sql } from 'drizzle-orm'
import type { Database } from '../../db/database.ts'
import { jobs } from '../../db/schema.ts'

/** Open jobs by kind and state, and how long ago the oldest of each was asked for. */
export async function countOpenJobs(db: Database): Promise<{ kind: string; state: string; count: number; oldestSeconds: number }[]> {
  const rows = await db
    .select({ kind: jobs.kind, state: jobs.state, count: count(), oldest: min(jobs.createdAt) })
    .from(jobs)
    .where(inArray(jobs.state, ['queued', 'running']))
    .groupBy(jobs.kind, jobs.state)
  return rows.map(({ oldest, ...row }) => ({ ...row, oldestSeconds: (Date.now() - oldest!.getTime()) / 1000 }))
}

/** Connections that a server has to PostgreSQL, by state, such as `active` and `idle`. */
export async function countConnections(db: Database, applicationName: string): Promise<{ state: string; count: number }[]> {
  const counted = await db.execute(sql`select coalesce(state, 'unknown') as state, count(*)::int as count from pg_stat_activity where application_name = ${applicationName} group by 1`)
  // postgres.js answers with the rows themselves, which drizzle's shared type does not say.
  return counted as unknown as { state: string; count: number }[]
}
