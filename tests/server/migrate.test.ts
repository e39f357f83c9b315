import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { migrateServer, planMigration } from '../../api/migrate-server.ts'
import { openPostgres } from '../../db/postgres.ts'
import { startTestRegistry } from '../contract/harness.ts'
import { startPostgres, type TestPostgres } from '../setup/postgres.ts'
import { startProgram } from '../setup/server-process.ts'
import { makeSchema, readJournal } from './schemas.ts'

const names = (await readJournal()).entries.map(({ tag }) => tag)
let postgres: TestPostgres
beforeAll(async () => { postgres = await startPostgres() })
afterAll(() => postgres?.stop())

async function query<T>(url: string, text: string): Promise<T[]> {
  const { sql, close } = openPostgres(url, { max: 1 })
  try {
    return [...(await sql.unsafe(text))] as T[]
  } finally {
    await close()
  }
}

async function appliedCount(url: string): Promise<number> {
  const [row] = await query<{ count: number }>(url, 'select count(*)::int as count from drizzle.__drizzle_migrations')
  return row!.count
}

it.each([['an empty', 0], ['an old', 3]] as const)('8 migrations at once of %s database: one does it, and the others find it done', async (_, count) => {
  const url = await postgres.createDatabase()
  await makeSchema(url, count)
  const reports = await Promise.all(Array.from({ length: 8 }, () => migrateServer(url)))
  expect(reports.filter(({ migrations }) => migrations.length > 0).map(({ migrations }) => migrations)).toEqual([names.slice(count)])
  expect(reports.filter(({ queue }) => queue.from !== queue.to)).toHaveLength(1)
  expect(await appliedCount(url)).toBe(names.length)
  expect(await query(url, "select name from queue.queue where name in ('ingest', 'evolve', 'dead-letters')")).toHaveLength(3)
  expect(await planMigration(url)).toMatchObject({ migrations: [] })
})

it('the deploy command says what it would do, does it, and says that nothing is left', { timeout: 60_000 }, async () => {
  const url = await postgres.createDatabase()
  await makeSchema(url, names.length - 1)
  const run = async (...args: string[]) => {
    // The direct URL is the one that counts: the other may lead through a pooler.
    const program = startProgram('api/server.ts', ['migrate', ...args], { DATABASE_URL: 'postgres://pooler.invalid/x', DATABASE_DIRECT_URL: url })
    return { code: (await program.ended).code, out: await program.output, errors: program.log.join('\n') }
  }
  const plan = await run('--check')
  expect(plan).toEqual({ code: 4, out: expect.stringContaining(`would apply ${names.at(-1)}\nwould bring the job queue from version 0 to `), errors: '' })
  expect(await appliedCount(url)).toBe(names.length - 1)
  expect(await run()).toEqual({ code: 0, out: expect.stringContaining(`applied ${names.at(-1)}\n`), errors: '' })
  expect(await run('--check', '--json')).toMatchObject({ code: 0, out: expect.stringContaining('"migrations":[]') })
})

describe('a server that may not migrate', () => {
  it.each(['never', 'expanded'] as const)('(%s) starts on no older schema, and leaves it as it is', async (migrate) => {
    const empty = await postgres.createDatabase()
    await expect(startTestRegistry({ databaseUrl: empty, migrate })).rejects.toThrow(/The database is empty, and PORTLLM_MIGRATE=.*portllm-server migrate/)
    expect(await query(empty, "select 1 from pg_namespace where nspname in ('drizzle', 'queue')")).toEqual([])
    const old = await postgres.createDatabase()
    await makeSchema(old, names.length - 2)
    await expect(startTestRegistry({ databaseUrl: old, migrate })).rejects.toThrow(`lacks ${names.slice(-2).join(', ')}`)
    expect(await appliedCount(old)).toBe(names.length - 2)
  })

  it('starts on exactly its own schema', async () => {
    const databaseUrl = await postgres.createDatabase()
    await migrateServer(databaseUrl)
    const registry = await startTestRegistry({ databaseUrl, migrate: 'never' })
    expect((await registry.call('getHealth')).status).toBe(200)
    await registry.close()
  })

  it('refuses a newer schema, as does one that may migrate; `expanded` takes it', async () => {
    const databaseUrl = await postgres.createDatabase()
    await migrateServer(databaseUrl)
    await query(databaseUrl, `insert into drizzle.__drizzle_migrations (hash, created_at) values ('of tomorrow', ${Date.now() + 1e12})`)
    for (const migrate of ['never', 'auto'] as const) await expect(startTestRegistry({ databaseUrl, migrate })).rejects.toThrow('The database has the schema of a newer PortLLM: 1 of its migrations are unknown here')
    const registry = await startTestRegistry({ databaseUrl, migrate: 'expanded' })
    expect((await registry.call('getHealth')).status).toBe(200)
    await registry.close()
    // The queue's tables count too.
    await query(databaseUrl, 'delete from drizzle.__drizzle_migrations where hash = \'of tomorrow\'; update queue.version set version = version + 1')
    await expect(startTestRegistry({ databaseUrl, migrate: 'never' })).rejects.toThrow(/its job queue has version \d+, not \d+/)
  })
})
