import { ConfigError, type ServerConfig } from './config.ts'
import { connectDatabase } from './connect-database.ts'
import { systemClock } from './ports/clock.ts'
import type { Log } from './ports/log.ts'
import { startPgBossQueue } from './ports/pg-boss-queue.ts'
import { noLauncher } from './ports/runner-launcher.ts'
import { repeat } from './repeat.ts'
import { reapJobs } from './services/jobs/reap.ts'
import { VERSION } from './version.ts'

/** How often lost jobs are ended. */
const REAP_MS = 5_000

export interface RunningDispatcher {
  /** Ends what it is at, and takes up nothing more. */
  close(): Promise<void>
}

/**
 * What a deployment needs beside a database whose API cannot do it, as on the edge: keeps the queue in order and ends
 * lost jobs. Any number may run at once. Throws ConfigError.
 */
export async function startDispatcher(config: ServerConfig, log: Log): Promise<RunningDispatcher> {
  const databaseUrl = config.directDatabaseUrl ?? config.databaseUrl
  if (databaseUrl === undefined) throw new ConfigError('There is no database to work beside: DATABASE_URL is not set. The embedded database needs no dispatcher.')
  const database = await connectDatabase({ ...config, databaseUrl })
  try {
    const queue = await startPgBossQueue(database, { supervise: true, migrate: config.migrate !== 'never', onError: (err) => log.error({ err }, 'The job queue has a problem') })
    const ctx = { db: database.db, queue, launcher: noLauncher, clock: systemClock }
    const stopReaping = repeat('watch over jobs', () => reapJobs({ ctx }), REAP_MS, log)
    log.info({ version: VERSION }, 'The dispatcher is at work')
    return {
      async close() {
        log.info({}, 'The dispatcher is ending')
        await stopReaping()
        await queue.stop()
        await database.close()
      },
    }
  } catch (error) {
    await database.close()
    throw error
  }
}
