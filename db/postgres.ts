import { drizzle } from 'drizzle-orm/postgres-js'
import postgres, { type Sql } from 'postgres'
import type { Database } from './database.ts'
import * as schema from './schema.ts'

export interface OpenedPostgres {
  readonly db: Database
  readonly sql: Sql
  close(): Promise<void>
}

export interface PostgresOptions {
  /** The most connections at once; 10 unless given. */
  readonly max?: number
  /** How the server lists these connections. */
  readonly applicationName?: string
  /** Around the client, for what looks on. */
  readonly wrap?: (sql: Sql) => Sql
}

/** A PostgreSQL server. Connects at the first query. */
export function openPostgres(url: string, { max = 10, applicationName, wrap = (sql) => sql }: PostgresOptions = {}): OpenedPostgres {
  const sql = wrap(postgres(url, { max, fetch_types: false, onnotice: () => {}, ...(applicationName !== undefined && { connection: { application_name: applicationName } }) }))
  return { db: drizzle(sql, { schema }), sql, close: () => sql.end({ timeout: 5 }) }
}
