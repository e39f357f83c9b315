import { and, asc, eq, inArray, notExists, sql } from 'drizzle-orm'
import { blobs, changedTensors, extents } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { inTransaction } from '../transaction.ts'

const CHUNK = 200

/**
 * Removes blobs that no file and no changed tensor refers to, all or among some. Their rows are locked while the objects
 * go: whoever stores the same bytes meanwhile (lockBlobs) waits, and then stores them anew.
 */
export async function removeUnreachableBlobs({ ctx, among }: { ctx: Pick<RequestContext, 'db' | 'blobs'>; among?: readonly string[] }): Promise<void> {
  const one = sql`1`
  const isUnreachable = and(
    notExists(ctx.db.select({ one }).from(extents).where(eq(extents.blob, blobs.sha256))),
    notExists(ctx.db.select({ one }).from(changedTensors).where(eq(changedTensors.blob, blobs.sha256))),
  )
  const candidates = among ?? (await ctx.db.select({ sha256: blobs.sha256 }).from(blobs).where(isUnreachable)).map(({ sha256 }) => sha256)
  for (let i = 0; i < candidates.length; i += CHUNK) {
    const chunk = candidates.slice(i, i + CHUNK)
    await inTransaction(ctx, async (tx) => {
      await tx.select({ sha256: blobs.sha256 }).from(blobs).where(inArray(blobs.sha256, chunk)).orderBy(asc(blobs.sha256)).for('update')
      // Asked again under the lock: what refers to a blob now has locked its row before.
      const gone = await tx.delete(blobs).where(and(inArray(blobs.sha256, chunk), isUnreachable)).returning({ sha256: blobs.sha256 })
      for (const { sha256 } of gone) await ctx.blobs.remove(sha256)
    })
  }
}
