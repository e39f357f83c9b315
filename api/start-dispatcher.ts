import { ConfigError, type ServerConfig } from './config.ts'
import { connectBlobs } from './connect-blobs.ts'
import { connectDatabase } from './connect-database.ts'
import { systemClock } from './ports/clock.ts'
import type { Log } from './ports/log.ts'
import { startPgBossQueue } from './ports/pg-boss-queue.ts'
import { noLauncher } from './ports/runner-launcher.ts'
import { repeat } from './repeat.ts'
import { collectWhenDue } from './services/garbage/collect-when-due.ts'
import { reapJobs } from './services/jobs/reap.ts'
import { VERSION } from './version.ts'

/** How often lost jobs are ended. */
const REAP_MS = 5_000
/** How often it is asked whether garbage collection is due. */
const COLLECT_MS = 3600_000

export interface RunningDispatcher {
  /** Ends what it is at, and takes up nothing more. */
  close(): Promise<void>
}

/**
 * What a deployment needs beside a database whose API cannot do it, as on the edge: keeps the queue in order, ends lost
 * jobs, and once a day removes from the bucket what nothing refers to. A data folder is its server's alone, which does
 * that itself. Any number may run at once. Throws ConfigError.
 */
export async function startDispatcher(config: ServerConfig, log: Log): Promise<RunningDispatcher> {
  const databaseUrl = config.directDatabaseUrl ?? config.databaseUrl
  if (databaseUrl === undefined) throw new ConfigError('There is no database to work beside: DATABASE_URL is not set. The embedded database needs no dispatcher.')
  const undo: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const database = await connectDatabase({ ...config, databaseUrl })
    undo.push(database.close)
    const { db } = database
    const queue = await startPgBossQueue(database, { supervise: true, migrate: config.migrate !== 'never', onError: (err) => log.error({ err }, 'The job queue has a problem') })
    undo.push(queue.stop)
    undo.push(repeat('watch over jobs', () => reapJobs({ ctx: { db, queue, launcher: noLauncher, clock: systemClock } }), REAP_MS, log))
    if (config.s3 !== undefined) {
      const { blobs } = await connectBlobs({ config, db, publicUrl: config.publicUrl ?? '' })
      undo.push(repeat('garbage collection', (signal) => collectWhenDue({ ctx: { db, blobs }, signal, graceSeconds: config.garbageGraceHours * 3600 }), COLLECT_MS, log))
    }
    log.info({ version: VERSION, bucket: config.s3?.bucket ?? null }, 'The dispatcher is at work')
    undo.push(async () => log.info({}, 'The dispatcher is ending'))
    return { close }
  } catch (error) {
    await close()
    throw error
  }
}
