import { and, asc, eq, gt } from 'drizzle-orm'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../../../db/database.ts'
import { blobs, settings } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { isReachable } from '../blobs/references.ts'
import { checkBlob, type BlobDamage } from './check-blob.ts'
import { findDependents, type Dependents } from './find-dependents.ts'

export interface DamagedBlob extends BlobDamage {
  readonly sha256: string
  readonly size: number
  readonly dependents: Dependents
}

export interface ScrubReport {
  /** Of blobs, and of their bytes, since the scrub was begun. */
  blobs: number
  bytes: number
  damaged: DamagedBlob[]
}

/** Where a scrub is that has not ended. */
interface Position extends ScrubReport {
  /** SHA-256 of the last blob that was checked. */
  after: string
}

export interface ScrubRequest {
  /** From the first blob on, also where an earlier scrub was interrupted. */
  readonly restart?: boolean | undefined
  readonly bytesPerSecond?: number | undefined
  readonly onProgress?: ((report: Readonly<ScrubReport>) => void) | undefined
  /** Ends it after the chunk that is being read; it goes on from there the next time. */
  readonly signal?: AbortSignal | undefined
}

const KEY = 'scrub'
const CHUNK = 500
/** How much is checked again at most, where it is killed. */
const SAVE_MS = 5_000

/**
 * Reads every blob that something refers to and compares it with its SHA-256 and its size. Removes and repairs nothing. Where
 * it was interrupted it goes on, and what it had found is told again. For whoever operates the registry.
 */
export async function scrub({ ctx, input = {} }: { ctx: Pick<Dependencies, 'db' | 'blobs'>; input?: ScrubRequest }): Promise<ScrubReport> {
  const { restart = false, bytesPerSecond, onProgress, signal } = input
  const position = (restart ? null : await readPosition(ctx.db)) ?? { after: '', blobs: 0, bytes: 0, damaged: [] }
  const hold = throttle(bytesPerSecond)
  let saved = Date.now()
  try {
    for await (const blob of reachableAfter(ctx.db, position.after)) {
      const damage = await checkBlob(ctx.blobs, blob, async (count) => {
        signal?.throwIfAborted()
        await hold(count)
      })
      signal?.throwIfAborted()
      // It may have been let go of, and collected, while it was being read.
      if (damage !== null && (await isStillReachable(ctx.db, blob.sha256))) position.damaged.push({ ...blob, ...damage, dependents: await findDependents(ctx.db, blob.sha256) })
      Object.assign(position, { after: blob.sha256, blobs: position.blobs + 1, bytes: position.bytes + blob.size })
      onProgress?.(position)
      if (Date.now() - saved < SAVE_MS) continue
      await savePosition(ctx.db, position)
      saved = Date.now()
    }
  } catch (error) {
    await savePosition(ctx.db, position)
    throw error
  }
  await ctx.db.delete(settings).where(eq(settings.key, KEY))
  return { blobs: position.blobs, bytes: position.bytes, damaged: position.damaged }
}

async function* reachableAfter(db: Database, start: string): AsyncGenerator<{ sha256: string; size: number }> {
  for (let after = start; ; ) {
    const rows = await db.select({ sha256: blobs.sha256, size: blobs.size }).from(blobs).where(and(gt(blobs.sha256, after), isReachable(db))).orderBy(asc(blobs.sha256)).limit(CHUNK)
    yield* rows
    if (rows.length < CHUNK) return
    after = rows.at(-1)!.sha256
  }
}

async function isStillReachable(db: Database, sha256: string): Promise<boolean> {
  const rows = await db.select({ sha256: blobs.sha256 }).from(blobs).where(and(eq(blobs.sha256, sha256), isReachable(db)))
  return rows.length > 0
}

/** Waits as long as reading goes faster than this. */
function throttle(bytesPerSecond: number | undefined): (count: number) => Promise<void> {
  const started = performance.now()
  let bytes = 0
  return async (count) => {
    if (bytesPerSecond === undefined) return
    bytes += count
    const ahead = (bytes / bytesPerSecond) * 1000 - (performance.now() - started)
    if (ahead > 1) await sleep(ahead)
  }
}

async function readPosition(db: Database): Promise<Position | null> {
  const [row] = await db.select({ value: settings.value }).from(settings).where(eq(settings.key, KEY))
  return (row?.value as Position | undefined) ?? null
}

async function savePosition(db: Database, value: Position): Promise<void> {
  await db.insert(settings).values({ key: KEY, value }).onConflictDoUpdate({ target: settings.key, set: { value } })
}
