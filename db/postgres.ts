import { drizzle } from 'drizzle-orm/postgres-js'
import postgres, { type Sql } from 'postgres'
import type { Database } from './database.ts'
import * as schema from './schema.ts'

/** Connections of one server process. */
const MAX_CONNECTIONS = 10

export interface OpenedPostgres {
  readonly db: Database
  readonly sql: Sql
  close(): Promise<void>
}

/** A PostgreSQL server. Connects at the first query. */
export function openPostgres(url: string, options: { max?: number } = {}): OpenedPostgres {
  const sql = postgres(url, { max: options.max ?? MAX_CONNECTIONS, fetch_types: false, onnotice: () => {} })
  return { db: drizzle(sql, { schema }), sql, close: () => sql.end({ timeout: 5 }) }
}
