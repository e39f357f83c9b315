import { sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import type { Dependencies } from '../../context.ts'
import type { BlobStore, KeyPrefix } from '../../ports/blob-store.ts'
import { recordAudit } from '../audit/record.ts'
import { collectBlobs } from '../blobs/collect.ts'
import { collectAttempts } from '../runner/collect-attempts.ts'
import { inTransaction } from '../transaction.ts'
import { collectUploads } from '../uploads/collect.ts'
import { collectIncoming } from './collect-incoming.ts'
import type { Removed } from './removed.ts'

export const GRACE_SECONDS = 24 * 3600
/** A draft whose bytes nobody added to for so long is abandoned: they go, and can be sent again. */
export const DRAFT_SECONDS = 30 * 24 * 3600

/** Bytes on their way in that have not moved for so long will not arrive, however short the grace period is. */
const STALLED_SECONDS = 3600

export interface GarbageRequest {
  /** What was written or let go of less long ago than this stays, needed or not. */
  readonly graceSeconds?: number | undefined
  readonly draftSeconds?: number | undefined
  /** Removes nothing, and tells what it would. */
  readonly dryRun?: boolean | undefined
  readonly kinds?: readonly KeyPrefix[] | undefined
  /** Nobody else uses the store: whatever is on its way in was left behind. */
  readonly alone?: boolean | undefined
  /** Ends it in the midst, which harms nothing. */
  readonly signal?: AbortSignal | undefined
}

export interface GarbageReport {
  readonly dryRun: boolean
  readonly graceSeconds: number
  readonly removed: Partial<Record<KeyPrefix, Removed>>
}

/**
 * Removes what nothing in the database can reach: blobs, and what was staged for drafts and jobs that have ended. Safe beside
 * all that the registry does, and beside another collection. For whoever operates the registry.
 */
export async function collectGarbage({ ctx, input = {} }: { ctx: Pick<Dependencies, 'db' | 'blobs'>; input?: GarbageRequest }): Promise<GarbageReport> {
  const { graceSeconds = GRACE_SECONDS, draftSeconds = DRAFT_SECONDS, dryRun = false, alone = false, signal, kinds = ['blobs', 'uploads', 'attempts', 'incoming'] } = input
  const now = await readNow(ctx.db)
  const collection = { ctx: { db: ctx.db, blobs: signal === undefined ? ctx.blobs : abortable(ctx.blobs, signal) }, before: ago(now, graceSeconds), dryRun }
  const removed: GarbageReport['removed'] = {}
  for (const kind of kinds) {
    switch (kind) {
      case 'blobs': removed.blobs = await collectBlobs(collection); break
      case 'uploads': removed.uploads = await collectUploads({ ...collection, draftsBefore: ago(now, Math.max(draftSeconds, graceSeconds)) }); break
      case 'attempts': removed.attempts = await collectAttempts(collection); break
      case 'incoming': removed.incoming = await collectIncoming({ ...collection, before: ago(now, alone ? 0 : Math.max(graceSeconds, STALLED_SECONDS)) })
    }
  }
  const report = { dryRun, graceSeconds, removed }
  if (!dryRun && Object.values(removed).some(({ objects }) => objects > 0)) {
    const nobody = { principal: { kind: 'anonymous' }, requestId: 'garbage-collection' } as const
    await inTransaction(ctx, (tx) => recordAudit({ ctx: nobody, tx, entry: { organizationId: null, action: 'registry.collect-garbage', subject: 'blobs', after: report } }))
  }
  return report
}

function abortable(blobs: BlobStore, signal: AbortSignal): BlobStore {
  return {
    ...blobs,
    async *list(prefix) {
      for await (const object of blobs.list(prefix)) {
        signal.throwIfAborted()
        yield object
      }
    },
  }
}

/** The database's clock: servers and operators' machines may each have another. */
async function readNow(db: Database): Promise<Date> {
  const seconds = sql`extract(epoch from now())::float8`.mapWith(Number)
  const [row] = await db.select({ seconds }).from(sql`(select 1) as one`)
  return new Date(row!.seconds * 1000)
}

function ago(now: Date, seconds: number): Date {
  return new Date(now.getTime() - seconds * 1000)
}
