import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { and, asc, eq } from 'drizzle-orm'
import { bigint, pgSchema, text } from 'drizzle-orm/pg-core'
import type { Database } from './database.ts'

const MIGRATIONS = fileURLToPath(new URL('./migrations', import.meta.url))

/** Where drizzle notes what it has applied. */
const applied = pgSchema('drizzle').table('__drizzle_migrations', { createdAt: bigint('created_at', { mode: 'number' }) })
const tables = pgSchema('information_schema').table('tables', { schema: text('table_schema'), name: text('table_name') })

export interface SchemaState {
  /** Names of the migrations that this version knows and the database lacks, in their order. */
  readonly pending: readonly string[]
  /** Migrations of the database that this version does not know: a newer one made them. */
  readonly unknown: number
  /** No migration was ever applied. */
  readonly isEmpty: boolean
}

interface Migration { readonly when: number; readonly tag: string }

async function readMigrations(): Promise<Migration[]> {
  return (JSON.parse(await readFile(join(MIGRATIONS, 'meta/_journal.json'), 'utf8')) as { entries: Migration[] }).entries
}

/** Names of the migrations that this version knows, in their order: the last is its schema. */
export async function knownMigrations(): Promise<string[]> {
  return (await readMigrations()).map(({ tag }) => tag)
}

/** Where a database stands. Changes nothing. */
export async function readSchemaState(db: Database): Promise<SchemaState> {
  const migrations = await readMigrations()
  const [table] = await db.select({ name: tables.name }).from(tables).where(and(eq(tables.schema, 'drizzle'), eq(tables.name, '__drizzle_migrations')))
  const rows = table === undefined ? [] : await db.select().from(applied).orderBy(asc(applied.createdAt))
  // As drizzle decides it: whatever is later than the last that was applied.
  const last = rows.at(-1)?.createdAt ?? 0
  const newest = migrations.at(-1)!.when
  return {
    pending: migrations.filter(({ when }) => when > last).map(({ tag }) => tag),
    unknown: rows.filter(({ createdAt }) => createdAt! > newest).length,
    isEmpty: rows.length === 0,
  }
}

/** Brings the database of `openPglite` to the schema of this version. */
export async function migratePglite(db: Database): Promise<void> {
  const { migrate } = await import('drizzle-orm/pglite/migrator')
  await migrate(db as unknown as Parameters<typeof migrate>[0], { migrationsFolder: MIGRATIONS })
}

/** The same for a PostgreSQL server, within `withMigrationLock`. */
export async function migratePostgres(db: Database): Promise<void> {
  const { migrate } = await import('drizzle-orm/postgres-js/migrator')
  await migrate(db as unknown as Parameters<typeof migrate>[0], { migrationsFolder: MIGRATIONS })
}

/**
 * Runs `work` while no other process does the same on this PostgreSQL; whoever comes second waits. The lock is held by the
 * session of `db`, and so ends with this process, however it ends: `url` must not lead through a pooler.
 */
export async function withMigrationLock<T>(url: string, work: (db: Database) => Promise<T>): Promise<T> {
  const { openPostgres } = await import('./postgres.ts')
  const { db, sql, close } = openPostgres(url, { max: 1 })
  try {
    await sql`select pg_advisory_lock(hashtext('portllm.migrate'))`
    return await work(db)
  } finally {
    await close()
  }
}
