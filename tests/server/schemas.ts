import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import { openPostgres } from '../../db/postgres.ts'
import { ROOT } from '../setup/registry.ts'

const MIGRATIONS = `${ROOT}db/migrations`

interface Journal { entries: { tag: string; when: number }[] }

export async function readJournal(): Promise<Journal> {
  return JSON.parse(await readFile(`${MIGRATIONS}/meta/_journal.json`, 'utf8')) as Journal
}

/** Brings an empty database to the schema of the first `count` migrations; at each of them the rows of `rows` are inserted. */
export async function makeSchema(url: string, count: number, rows: (tag: string) => Promise<string> = async () => ''): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-migrations-'))
  const { db, sql, close } = openPostgres(url, { max: 1 })
  try {
    await cp(MIGRATIONS, folder, { recursive: true })
    const journal = await readJournal()
    for (const [index, { tag }] of journal.entries.slice(0, count).entries()) {
      await writeFile(join(folder, 'meta/_journal.json'), JSON.stringify({ ...journal, entries: journal.entries.slice(0, index + 1) }))
      await migrate(db as never, { migrationsFolder: folder })
      await sql.unsafe(await rows(tag))
    }
  } finally {
    await close()
    await rm(folder, { recursive: true })
  }
}
