import { join } from 'node:path'
import type { PGlite } from '@electric-sql/pglite'
import type { Sql } from 'postgres'
import type { Database } from '../db/database.ts'
import { migratePglite, migratePostgres } from '../db/migrate.ts'
import { openPglite } from '../db/pglite.ts'
import { openPostgres } from '../db/postgres.ts'
import { ConfigError, type ServerConfig } from './config.ts'

export type ConnectedDatabase = { db: Database; close(): Promise<void> } & ({ engine: 'pglite'; pglite: PGlite } | { engine: 'postgres'; sql: Sql; url: string })

/** The database of the configuration, at the schema of this version. */
export async function connectDatabase(config: ServerConfig): Promise<ConnectedDatabase> {
  if (config.databaseUrl === undefined) {
    const opened = await openPglite(join(config.data, 'database'))
    await migratePglite(opened.db)
    return { engine: 'pglite', ...opened }
  }
  await migratePostgres(config.databaseUrl).catch((error: NodeJS.ErrnoException) => {
    const { host } = new URL(config.databaseUrl!)
    throw new ConfigError(`The database of DATABASE_URL (at ${host || 'the local socket'}) cannot be used: ${error.message || error.code}`)
  })
  return { engine: 'postgres', url: config.databaseUrl, ...openPostgres(config.databaseUrl) }
}
