import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { expect, it } from 'vitest'
import { audit } from '../../db/schema.ts'
import { claimIngest, newOrganization, startTestRegistry, upload } from '../contract/harness.ts'
import { startPostgres } from '../setup/postgres.ts'
import { startProgram } from '../setup/server-process.ts'

const JOBS = 12

it('ends lost jobs where the API does not, each once, however many dispatchers there are', { timeout: 90_000 }, async () => {
  const postgres = await startPostgres()
  const databaseUrl = await postgres.createDatabase()
  const registry = await startTestRegistry({ databaseUrl, supervise: false })
  const { db, queue } = registry.server.dependencies
  const start = () => startProgram('api/dispatcher.ts', [], { DATABASE_URL: databaseUrl })
  const dispatchers: ReturnType<typeof start>[] = []
  try {
    const org = await newOrganization(registry)
    const jobs: string[] = []
    for (let i = 0; i < JOBS; i++) {
      await upload(registry, { kind: 'model', org, name: `model-${i}`, version: 'v1', files: { 'model.safetensors': 'x' } })
      jobs.push((await claimIngest(registry)).job.id)
    }
    const states = async () => Promise.all(jobs.map(async (id) => (await registry.ok('getJob', { params: { id } })).state))
    // The runner of every job was last heard of an hour ago, at the last of its tries.
    await db.execute(sql`update queue.job set retry_count = retry_limit, heartbeat_on = now() - interval '1 hour' where name = 'ingest' and state = 'active'`)
    await sleep(6_000)
    expect(new Set(await states())).toEqual(new Set(['running']))

    dispatchers.push(start(), start())
    await Promise.all(dispatchers.map(({ logged }) => logged('The dispatcher is at work')))
    await expect.poll(states, { timeout: 40_000, interval: 500 }).toEqual(jobs.map(() => 'failed'))
    expect(await registry.ok('getJob', { params: { id: jobs[0]! } })).toMatchObject({ failure: { code: 'runner_lost', retryable: true } })
    const ended = await db.select({ subject: audit.subject }).from(audit).where(sql`${audit.action} = 'job.fail'`)
    expect(ended.map(({ subject }) => subject).sort()).toEqual([...jobs].sort())
    expect(await queue.takeDead()).toEqual([])

    for (const { child } of dispatchers) child.kill('SIGTERM')
    expect(await Promise.all(dispatchers.map(({ ended: end }) => end))).toEqual(dispatchers.map(() => ({ code: 0, signal: null })))
    expect(dispatchers.flatMap(({ log }) => log).filter((line) => /"level":"(warn|error|fatal)"/.test(line))).toEqual([])
  } finally {
    for (const { child } of dispatchers) child.kill('SIGKILL')
    await registry.close()
    await postgres.stop()
  }
})

it('a lost job whose dispatcher dies before it has ended it is ended by the next', { timeout: 60_000 }, async () => {
  const postgres = await startPostgres()
  const databaseUrl = await postgres.createDatabase()
  const registry = await startTestRegistry({ databaseUrl })
  const { db, queue } = registry.server.dependencies
  try {
    const org = await newOrganization(registry)
    await upload(registry, { kind: 'model', org, name: 'model', version: 'v1', files: { 'model.safetensors': 'x' } })
    const { job: { id } } = await claimIngest(registry)
    const state = async () => (await registry.ok('getJob', { params: { id } })).state
    // The letter that tells of it was taken by somebody who has not been heard of for an hour.
    await db.execute(sql`insert into queue.job (name, data, state, started_on, retry_limit, retry_count, expire_seconds) values ('dead-letters', ${JSON.stringify({ jobId: id })}::jsonb, 'active', now() - interval '1 hour', 100, 0, 900)`)
    expect(await queue.takeDead()).toEqual([])
    await expect.poll(state, { timeout: 30_000, interval: 500 }).toBe('failed')
  } finally {
    await registry.close()
    await postgres.stop()
  }
})

it('says what it needs', async () => {
  const program = startProgram('api/dispatcher.ts', [], {})
  expect([await program.ended, program.log]).toEqual([{ code: 1, signal: null }, [expect.stringContaining('DATABASE_URL is not set')]])
})
