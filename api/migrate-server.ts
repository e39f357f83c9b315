import type { Database } from '../db/database.ts'
import { migratePostgres, readSchemaState, withMigrationLock } from '../db/migrate.ts'
import { openPostgres } from '../db/postgres.ts'
import { ConfigError, type ServerConfig } from './config.ts'
import { migrateQueue, readQueueState, type QueueState } from './ports/queue-schema.ts'

export interface MigrationReport {
  /** Migrations that were, or would be, applied, in their order. */
  readonly migrations: readonly string[]
  readonly queue: QueueState
}

/**
 * Brings a PostgreSQL server to the schema of this version: the registry's tables and the queue's. Any number may do so at
 * once: one does, the others wait and find it done. Throws ConfigError on a schema of a newer version.
 */
export async function migrateServer(url: string): Promise<MigrationReport> {
  return withMigrationLock(url, async (db) => {
    await assertSchema(db, 'auto', url)
    const report = await reportOf(db, url)
    await migratePostgres(db)
    await migrateQueue(url)
    return report
  })
}

/** What `migrateServer` would do. Changes nothing. */
export async function planMigration(url: string): Promise<MigrationReport> {
  const { db, close } = openPostgres(url, { max: 1 })
  try {
    await assertSchema(db, 'auto', url)
    return await reportOf(db, url)
  } finally {
    await close()
  }
}

async function reportOf(db: Database, url: string): Promise<MigrationReport> {
  const { pending } = await readSchemaState(db)
  return { migrations: pending, queue: await readQueueState(url) }
}

/** Whether a server of this version may work on the schema that is there; `url` where it is a PostgreSQL server's. Throws ConfigError that says what to do. */
export async function assertSchema(db: Database, migrate: ServerConfig['migrate'], url?: string): Promise<void> {
  const { pending, unknown, isEmpty } = await readSchemaState(db)
  const queue = url === undefined ? { from: 0, to: 0 } : await readQueueState(url)
  const newer = [...(unknown > 0 ? [`${unknown} of its migrations are unknown here`] : []), ...(queue.from > queue.to ? [`its job queue has version ${queue.from}, not ${queue.to}`] : [])]
  if (newer.length > 0 && migrate !== 'expanded') {
    throw new ConfigError(`The database has the schema of a newer PortLLM: ${newer.join(', and ')}. Run that version, or, in the middle of a deploy or to go back by one version, set PORTLLM_MIGRATE=expanded.`)
  }
  const older = [...(isEmpty ? ['is empty'] : pending.length > 0 ? [`lacks ${pending.join(', ')}`] : []), ...(!isEmpty && queue.from < queue.to ? [`has the job queue's version ${queue.from}, not ${queue.to}`] : [])]
  if (older.length > 0 && migrate !== 'auto') {
    throw new ConfigError(`The database ${older.join(' and ')}, and PORTLLM_MIGRATE=${migrate} forbids to change it at the start. Run "portllm-server migrate" first.`)
  }
}
