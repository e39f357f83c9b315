import { join } from 'node:path'
import type { PGlite } from '@electric-sql/pglite'
import type { Sql } from 'postgres'
import type { Database } from '../db/database.ts'
import { migratePglite } from '../db/migrate.ts'
import { openPglite } from '../db/pglite.ts'
import { openPostgres } from '../db/postgres.ts'
import { ConfigError, type ServerConfig } from './config.ts'
import { assertSchema, migrateServer } from './migrate-server.ts'

export type ConnectedDatabase = { db: Database; close(): Promise<void> } & ({ engine: 'pglite'; pglite: PGlite } | { engine: 'postgres'; sql: Sql; url: string })

/** How requests' connections to a PostgreSQL server are named, and what looks on. */
interface Observers {
  readonly applicationName?: string
  readonly traceSql?: (sql: Sql) => Sql
}

/**
 * The database of the configuration, at the schema of this version: it is brought to it, or must be at it already, as the
 * configuration says. Throws ConfigError.
 */
export async function connectDatabase(config: ServerConfig, { applicationName, traceSql }: Observers = {}): Promise<ConnectedDatabase> {
  const { databaseUrl, databaseConnections } = config
  if (databaseUrl === undefined) {
    const opened = await openPglite(join(config.data, 'database'))
    try {
      await assertSchema(opened.db, 'auto')
      await migratePglite(opened.db)
    } catch (error) {
      await opened.close()
      throw error
    }
    return { engine: 'pglite', ...opened }
  }
  if (config.migrate === 'auto') await usable(config, () => migrateServer(config.directDatabaseUrl ?? databaseUrl))
  // Where another URL goes past a pooler, this one goes through it.
  const opened = openPostgres(databaseUrl, { max: databaseConnections, prepare: config.directDatabaseUrl === undefined, ...(applicationName !== undefined && { applicationName }), ...(traceSql !== undefined && { wrap: traceSql }) })
  try {
    await usable(config, () => assertSchema(opened.db, config.migrate, databaseUrl))
  } catch (error) {
    await opened.close()
    throw error
  }
  return { engine: 'postgres', url: databaseUrl, ...opened }
}

/** Says which database it is that does not work. The password is in no message. */
async function usable<T>({ databaseUrl }: ServerConfig, work: () => Promise<T>): Promise<T> {
  return work().catch((error: Error & { code?: string }) => {
    if (error instanceof ConfigError) throw error
    const cause = (error.cause ?? error) as Error & { code?: string }
    throw new ConfigError(`The database of DATABASE_URL (at ${new URL(databaseUrl!).host || 'the local socket'}) cannot be used: ${cause.message || cause.code}`)
  })
}

