import type { Database } from '../../db/database.ts'

export const JOB_KINDS = ['ingest', 'merge', 'analyze', 'evaluate', 'finetune', 'evolve'] as const
export type JobKind = (typeof JOB_KINDS)[number]

export function isJobKind(kind: string): kind is JobKind {
  return (JOB_KINDS as readonly string[]).includes(kind)
}

/** A runner that was not heard of for this long has lost its job. pg-boss takes no less than 10. */
export const LEASE_SECONDS = 20

/** One attempt of one job; `retryCount` fences it: an older attempt cannot settle a newer one. */
export interface Attempt {
  readonly kind: JobKind
  /** Id of the row in `jobs`. */
  readonly jobId: string
  readonly queueId: string
  readonly retryCount: number
}

export interface DeadJob {
  /** Id of the row in `jobs`. */
  readonly jobId: string
  /** Of the message that tells of it. */
  readonly letterId: string
}

/** Jobs wait here in the same database, and are enqueued and settled in the caller's transaction. */
export interface JobQueue {
  /** With `queueId`, which no job of the queue has yet, the job gets that. */
  enqueue(tx: Database, job: { kind: JobKind; jobId: string; queueId?: string }): Promise<{ queueId: string }>
  /** The oldest waiting job of one of the kinds, or null. */
  claim(kinds: readonly JobKind[]): Promise<Attempt | null>
  /** Extends the lease. False: this attempt no longer holds the job. */
  touch(attempt: Attempt): Promise<boolean>
  /** False: this attempt no longer holds the job, and the transaction must be rolled back. */
  complete(tx: Database, attempt: Attempt): Promise<boolean>
  /** `retry: false` ends the job for good. `willRetry` tells whether another attempt follows. */
  fail(tx: Database, attempt: Attempt, failure: { retry: boolean }): Promise<{ held: boolean; willRetry: boolean }>
  /** Jobs whose last attempt was lost without a word: the caller marks them failed. Each is told to one caller, and again later unless it is settled. */
  takeDead(): Promise<DeadJob[]>
  /** In the transaction that marks it failed. */
  settleDead(tx: Database, dead: DeadJob): Promise<void>
}
