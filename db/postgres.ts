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
  /** Has the server plan each text of a query once for a connection. Not through a pooler, which may change connections in between. */
  readonly prepare?: boolean
  /** Around the client, for what looks on. */
  readonly wrap?: (sql: Sql) => Sql
}

/** A PostgreSQL server. Connects at the first query. */
export function openPostgres(url: string, { max = 10, applicationName, prepare = false, wrap = (sql) => sql }: PostgresOptions = {}): OpenedPostgres {
  const client = postgres(url, { max, fetch_types: false, onnotice: () => {}, ...(applicationName !== undefined && { connection: { application_name: applicationName } }) })
  const sql = wrap(prepare ? preparing(client) : client)
  return { db: drizzle(sql, { schema }), sql, close: () => sql.end({ timeout: 5 }) }
}

/** drizzle sends every query unprepared. Questions are asked again in the same words; what is written seldom is. */
function preparing(client: Sql): Sql {
  const unsafe: Sql['unsafe'] = (text, values, options) => client.unsafe(text, values, { ...options, prepare: text.startsWith('select ') })
  return new Proxy(client, { get: (target, name, receiver) => (name === 'unsafe' ? unsafe : Reflect.get(target, name, receiver)) })
}
