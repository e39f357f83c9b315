import { PgBoss } from 'pg-boss'
import packageJson from 'pg-boss/package.json' with { type: 'json' }
import { BASE, createQueues } from './pg-boss-queue.ts'

/** Versions of the queue's own tables; 0 where there are none. */
export interface QueueState {
  readonly from: number
  /** What this version works with. */
  readonly to: number
}

/** Where the queue's tables on a PostgreSQL server stand. Changes nothing. */
export async function readQueueState(url: string): Promise<QueueState> {
  const boss = openBoss(url)
  const db = boss.getDb() as unknown as { open(): Promise<void>; close(): Promise<void> }
  await db.open()
  try {
    return { from: (await boss.isInstalled()) ? ((await boss.schemaVersion()) ?? 0) : 0, to: packageJson.pgboss.schema }
  } finally {
    await db.close()
  }
}

/** Makes the queue's tables and its queues, or brings them to what this version works with. */
export async function migrateQueue(url: string): Promise<void> {
  const boss = openBoss(url)
  await boss.start()
  try {
    await createQueues(boss)
  } finally {
    await boss.stop({ graceful: false })
  }
}

function openBoss(url: string): PgBoss {
  const boss = new PgBoss({ ...BASE, connectionString: url, max: 2, supervise: false })
  // What fails is thrown where it is awaited; without a listener an error of an idle connection would end the process.
  boss.on('error', () => {})
  return boss
}
