import { fileURLToPath } from 'node:url'
import type { Database } from './database.ts'

const MIGRATIONS = fileURLToPath(new URL('./migrations', import.meta.url))

/** Brings the database of `openPglite` to the schema of this version. */
export async function migratePglite(db: Database): Promise<void> {
  const { migrate } = await import('drizzle-orm/pglite/migrator')
  await migrate(db as unknown as Parameters<typeof migrate>[0], { migrationsFolder: MIGRATIONS })
}

/** The same for a PostgreSQL server; one process at a time, held by an advisory lock on a connection of its own. */
export async function migratePostgres(url: string): Promise<void> {
  const [{ migrate }, { openPostgres }] = await Promise.all([import('drizzle-orm/postgres-js/migrator'), import('./postgres.ts')])
  const { db, sql, close } = openPostgres(url, { max: 1 })
  try {
    await sql`select pg_advisory_lock(hashtext('portllm.migrate'))`
    await migrate(db as unknown as Parameters<typeof migrate>[0], { migrationsFolder: MIGRATIONS })
  } finally {
    await close()
  }
}
