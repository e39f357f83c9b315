import { and, inArray } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs } from '../../../db/schema.ts'
import { inChunks } from '../garbage/in-chunks.ts'
import type { Collection, Removed } from '../garbage/removed.ts'

const CHUNK = 500
const KEY = /^attempts\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\/|$)/

/** Removes what attempts have staged for jobs that have ended: no job begins again, so nobody can use it. */
export async function collectAttempts({ ctx, before, dryRun }: Collection): Promise<Removed> {
  const total = { objects: 0, bytes: 0 }
  for await (const listed of inChunks(ctx.blobs.list('attempts'), CHUNK)) {
    const old = listed.filter(({ modifiedAt }) => modifiedAt < before)
    const open = await openAmong(ctx.db, old.flatMap(({ key }) => jobOf(key) ?? []))
    for (const { key, size } of old) {
      if (open.has(jobOf(key))) continue
      if (!dryRun) await ctx.blobs.discard(key)
      total.objects++
      total.bytes += size
    }
  }
  return total
}

function jobOf(key: string): string | undefined {
  return KEY.exec(key)?.[1]
}

async function openAmong(db: Database, ids: readonly string[]): Promise<Set<string | undefined>> {
  if (ids.length === 0) return new Set()
  const rows = await db.select({ id: jobs.id }).from(jobs).where(and(inArray(jobs.id, [...new Set(ids)]), inArray(jobs.state, ['queued', 'running'])))
  return new Set(rows.map(({ id }) => id))
}
