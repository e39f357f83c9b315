import { asc, inArray, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { blobs } from '../../../db/schema.ts'

const CHUNK = 500

/**
 * Notes that the caller's transaction has let go of these blobs. The grace period of garbage collection counts from then
 * on, for readers that have begun, and for backups: docs/operations.md.
 */
export async function releaseBlobs(tx: Database, released: readonly string[]): Promise<void> {
  const sorted = [...new Set(released)].sort()
  for (let i = 0; i < sorted.length; i += CHUNK) {
    const chunk = inArray(blobs.sha256, sorted.slice(i, i + CHUNK))
    // In the order of lockBlobs, so that the two never wait for each other.
    await tx.select({ sha256: blobs.sha256 }).from(blobs).where(chunk).orderBy(asc(blobs.sha256)).for('update')
    await tx.update(blobs).set({ releasedAt: sql`now()` }).where(chunk)
  }
}
