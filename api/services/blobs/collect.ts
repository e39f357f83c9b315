import { and, asc, gt, gte, inArray, isNull, lt, or, sql, type SQL } from 'drizzle-orm'
import pLimit from 'p-limit'
import type { Database } from '../../../db/database.ts'
import { blobs } from '../../../db/schema.ts'
import { blobKey, type StoredObject } from '../../ports/blob-store.ts'
import { inChunks } from '../garbage/in-chunks.ts'
import type { Collection, Removed } from '../garbage/removed.ts'
import { inTransaction } from '../transaction.ts'
import { isReachable, isUnreachable } from './references.ts'

/** Few, since whoever stores the same bytes waits as long as a chunk is being removed. */
const CHUNK = 100
/** Removals at once. */
const CONCURRENCY = 16

const SHA256 = /[0-9a-f]{64}$/

type Candidate = Pick<StoredObject, 'size'> & { readonly sha256: string }

/**
 * Removes blobs that nothing refers to, and that nothing has stored or let go of since `before`: those that a row names, and
 * those that a transaction stored which was then rolled back. What is no blob by its name is left alone.
 */
export async function collectBlobs({ ctx, before, dryRun }: Collection): Promise<Removed> {
  const total = { objects: 0, bytes: 0 }
  const add = (gone: readonly Candidate[]) => {
    total.objects += gone.length
    for (const { size } of gone) total.bytes += size
  }
  for await (const listed of inChunks(ctx.blobs.list('blobs'), CHUNK)) {
    const old = listed.filter(({ key, modifiedAt }) => modifiedAt < before && isBlob(key)).map(({ key, size }) => ({ sha256: SHA256.exec(key)![0], size }))
    const candidates = await unreachableAmong(ctx.db, old, before)
    add(dryRun ? candidates : await remove(ctx, candidates, before))
  }
  for await (const lost of inChunks(rowsWithoutObject(ctx, before), CHUNK)) if (!dryRun) await remove(ctx, lost, before)
  return total
}

function isBlob(key: string): boolean {
  const sha256 = SHA256.exec(key)?.[0]
  return sha256 !== undefined && blobKey(sha256) === key
}

/** A first look, without locks. */
async function unreachableAmong(db: Database, old: readonly Candidate[], before: Date): Promise<Candidate[]> {
  if (old.length === 0) return []
  const kept = await db
    .select({ sha256: blobs.sha256 })
    .from(blobs)
    .where(and(inArray(blobs.sha256, old.map(({ sha256 }) => sha256)), or(isReachable(db), gte(blobs.releasedAt, before))))
  const needed = new Set(kept.map(({ sha256 }) => sha256))
  return old.filter(({ sha256 }) => !needed.has(sha256))
}

/**
 * Each gets its row, which is locked while the object goes: whoever stores the same bytes meanwhile (lockBlobs) waits, and
 * then stores them anew. Whether anything refers to it is asked again under the lock.
 */
async function remove(ctx: Collection['ctx'], candidates: readonly Candidate[], before: Date): Promise<Candidate[]> {
  if (candidates.length === 0) return []
  const sorted = [...candidates].sort((a, b) => (a.sha256 < b.sha256 ? -1 : 1))
  return inTransaction(ctx, async (tx) => {
    // Locked in the order of lockBlobs, present or not, so that the two never wait for each other.
    await tx.insert(blobs).values(sorted).onConflictDoUpdate({ target: blobs.sha256, set: { size: sql`${blobs.size}` } })
    const gone = await tx.delete(blobs).where(and(inArray(blobs.sha256, sorted.map(({ sha256 }) => sha256)), isUnreachable(tx), wasReleased(before))).returning({ sha256: blobs.sha256 })
    const limit = pLimit(CONCURRENCY)
    await Promise.all(gone.map(({ sha256 }) => limit(() => ctx.blobs.remove(sha256))))
    const removed = new Set(gone.map(({ sha256 }) => sha256))
    return sorted.filter(({ sha256 }) => removed.has(sha256))
  })
}

function wasReleased(before: Date): SQL {
  return or(isNull(blobs.releasedAt), lt(blobs.releasedAt, before))!
}

/** A collection that was killed between object and row leaves such rows. */
async function* rowsWithoutObject(ctx: Collection['ctx'], before: Date): AsyncGenerator<Candidate> {
  for (let after = ''; ; ) {
    const rows = await ctx.db
      .select({ sha256: blobs.sha256, size: blobs.size })
      .from(blobs)
      .where(and(gt(blobs.sha256, after), isUnreachable(ctx.db), lt(blobs.createdAt, before), wasReleased(before)))
      .orderBy(asc(blobs.sha256))
      .limit(CHUNK)
    for (const row of rows) if ((await ctx.blobs.size(blobKey(row.sha256))) === null) yield row
    if (rows.length < CHUNK) return
    after = rows.at(-1)!.sha256
  }
}
