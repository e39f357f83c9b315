import { sql } from 'drizzle-orm'
import { fromDrizzle, fromPglite, PgBoss, type ConstructorOptions, type DrizzleTransactionLike } from 'pg-boss'
import type { Database } from '../../db/database.ts'
import type { ConnectedDatabase } from '../connect-database.ts'
import { JOB_KINDS, LEASE_SECONDS, type Attempt, type JobQueue } from './job-queue.ts'

/** Tries of one job, the first included. */
const TRIES = 3
/** Longest run of one attempt, however often it reports. */
const ATTEMPT_HOURS = 12
const SUPERVISE_SECONDS = 5
/** Where jobs go that have used up their tries without any runner saying so. */
const DEAD_LETTERS = 'dead-letters'
/** Of every instance: where the queue's own tables are. */
export const BASE = { schema: 'queue', schedule: false } satisfies ConstructorOptions

interface QueuedJob { jobId: string }

export interface StartedQueue extends JobQueue {
  /** Rejects where the queue's tables cannot be reached. */
  check(): Promise<void>
  stop(): Promise<void>
}

export interface QueueOptions {
  /** Whether this process keeps the queue in order: ends attempts whose lease is over, removes what is old. */
  readonly supervise: boolean
  /** Whether the queue's own tables are made, or brought to the version of this pg-boss; otherwise they must be at it. */
  readonly migrate: boolean
  /** Hears of failures in its background work. */
  readonly onError: (error: Error) => void
}

/** pg-boss over the registry's own database. */
export async function startPgBossQueue(database: ConnectedDatabase, { supervise, migrate, onError }: QueueOptions): Promise<StartedQueue> {
  const connection: ConstructorOptions = database.engine === 'pglite' ? { db: fromPglite(database.pglite), backend: 'pglite' } : { connectionString: database.url, max: 4 }
  const boss = new PgBoss({ ...BASE, ...connection, supervise, migrate, superviseIntervalSeconds: SUPERVISE_SECONDS, monitorIntervalSeconds: SUPERVISE_SECONDS })
  boss.on('error', onError)
  await boss.start()
  await createQueues(boss)
  return {
    ...jobQueue(() => boss),
    check: async () => void (await boss.schemaVersion()),
    stop: () => boss.stop({ graceful: false, close: database.engine === 'postgres' }),
  }
}

/**
 * The same queues through a connection that lives for one request: nothing is started, and what watches over the jobs
 * runs elsewhere. `db` must have a second connection for a look at the queues beside a transaction.
 */
export function openPgBossQueue(db: Database): JobQueue {
  let boss: PgBoss | undefined
  return jobQueue(() => (boss ??= new PgBoss({ ...BASE, db: within(db), supervise: false, migrate: false })))
}

function jobQueue(boss: () => PgBoss): JobQueue {
  return {
    async enqueue(tx, { kind, jobId, queueId: id }) {
      const queueId = await boss().send(kind, { jobId } satisfies QueuedJob, { db: within(tx), ...(id !== undefined && { id }) })
      if (queueId === null) throw new Error(`the queue ${kind} did not take job ${jobId}`)
      return { queueId }
    },
    async claim(kinds) {
      for (const kind of kinds) {
        const [job] = await boss().fetch<QueuedJob>(kind, { includeMetadata: true })
        if (job !== undefined) return { kind, jobId: job.data.jobId, queueId: job.id, retryCount: job.retryCount }
      }
      return null
    },
    async touch(attempt) {
      return affected(await boss().touch(attempt.kind, fence(attempt)))
    },
    async complete(tx, attempt) {
      return affected(await boss().complete(attempt.kind, fence(attempt), null, { db: within(tx) }))
    },
    async fail(tx, attempt, { retry }) {
      const db = within(tx)
      // A job that must not be tried again is settled in the queue; the registry's own row says how it ended.
      if (!retry || attempt.retryCount + 1 >= TRIES) return { held: affected(await boss().complete(attempt.kind, fence(attempt), null, { db })), willRetry: false }
      // Without data: it would reach postgres.js as an object, which drizzle has taught it not to serialize.
      return { held: affected(await boss().fail(attempt.kind, fence(attempt), null, { db })), willRetry: true }
    },
    async takeDead() {
      const dead = await boss().fetch<QueuedJob>(DEAD_LETTERS, { batchSize: 100 })
      return dead.map((job) => ({ jobId: job.data.jobId, letterId: job.id }))
    },
    async settleDead(tx, { letterId }) {
      await boss().complete(DEAD_LETTERS, letterId, null, { db: within(tx) })
    },
  }
}

/** Idempotent. It also fills pg-boss's cache: a miss inside a transaction would wait for PGlite's only connection for ever. */
export async function createQueues(boss: PgBoss): Promise<void> {
  await boss.createQueue(DEAD_LETTERS, { retryLimit: 100 })
  for (const kind of JOB_KINDS) {
    await boss.createQueue(kind, {
      retryLimit: TRIES - 1,
      retryDelay: 1,
      retryBackoff: true,
      expireInSeconds: ATTEMPT_HOURS * 3600,
      heartbeatSeconds: LEASE_SECONDS,
      deadLetter: DEAD_LETTERS,
    })
  }
}

function fence(attempt: Attempt): { id: string; retryCount: number } {
  return { id: attempt.queueId, retryCount: attempt.retryCount }
}

/** pg-boss's types leave out what its commands answer (12.38, manager.mapCommandResponse). */
function affected(response: object): boolean {
  return (response as { affected: number }).affected > 0
}

/** pg-boss on the caller's transaction; both drivers answer `execute` with the rows, which drizzle's shared type does not say. */
function within(tx: Database) {
  return fromDrizzle(tx as unknown as DrizzleTransactionLike, sql)
}
