import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startPostgres, type TestPostgres } from '../setup/postgres.ts'
import { startProgram } from '../setup/server-process.ts'

let postgres: TestPostgres
let folder: string
beforeAll(async () => {
  postgres = await startPostgres()
  folder = await mkdtemp(join(tmpdir(), 'portllm-test-'))
})
afterAll(async () => {
  await postgres?.stop()
  await rm(folder, { recursive: true, force: true })
})

async function run(args: readonly string[], environment: Record<string, string> = {}) {
  const program = startProgram('api/server.ts', args, environment)
  const { code } = await program.ended
  return { code, out: await program.output, errors: program.log.join('\n') }
}

it('--check-config shows what is in effect and whether it works, and changes nothing', async () => {
  const DATABASE_URL = await postgres.createDatabase()
  const data = join(folder, 'not-there-yet')
  const good = await run(['--check-config', '--json', '--data', data], { DATABASE_URL, PORTLLM_LOG_LEVEL: 'warn' })
  expect(good).toMatchObject({ code: 0, errors: '' })
  const { settings, checks, isUsable } = JSON.parse(good.out)
  expect(checks).toEqual([{ part: 'database', problem: null }, { part: 'data folder', problem: null }])
  expect(isUsable).toBe(true)
  expect(settings.filter(({ from }: { from: string }) => from !== 'default')).toEqual([
    { setting: 'data', environment: 'PORTLLM_DATA_FOLDER', value: data, from: 'option' },
    { setting: 'databaseUrl', environment: 'DATABASE_URL', value: DATABASE_URL.replace('unused', '***'), from: 'environment' },
    { setting: 'logLevel', environment: 'PORTLLM_LOG_LEVEL', value: 'warn', from: 'environment' },
  ])
  expect(await readdir(folder)).toEqual([])

  const bad = await run(['--check-config', '--data', '/proc/version/x'], { DATABASE_URL, PORTLLM_MIGRATE: 'never', PORTLLM_S3_BUCKET: 'bucket', PORTLLM_S3_ENDPOINT: 'http://127.0.0.1:1' })
  expect(bad.code).toBe(3)
  expect(bad.out).toMatch(/^DATABASE_URL +postgres:\/\/portllm:\*\*\*@.*\(environment\)$/m)
  expect(bad.out).toMatch(/^database: The database is empty, and PORTLLM_MIGRATE=never .*portllm-server migrate/m)
  expect(bad.out).toMatch(/^bucket: .*127\.0\.0\.1:1/m)
  expect(bad.out).toMatch(/^data folder: .*\/proc\/version/m)
})

it('its help has examples and exit codes, and a wrong command is wrong usage', async () => {
  const help = await run(['--help'])
  expect(help).toMatchObject({ code: 0, errors: '' })
  for (const text of ['--check-config', 'migrate', 'Examples:', 'Exit codes:']) expect(help.out).toContain(text)
  expect(await run(['serv'])).toMatchObject({ code: 2, errors: expect.stringContaining('--help tells more') })
})

it('portllm-server passes a signal on, where it had to start another Node', async () => {
  // As an old Node: one that runs no TypeScript.
  const program = startProgram('api/portllm-server.js', ['--data', folder, '--port', '0', '--no-runners', '--json'], { DATABASE_URL: await postgres.createDatabase() }, ['--no-experimental-strip-types'])
  const [chunk] = (await once(program.child.stdout!, 'data')) as [Buffer]
  const { url } = JSON.parse(chunk.toString())
  expect((await fetch(`${url}/healthz`)).status).toBe(200)
  program.child.kill('SIGTERM')
  expect(await program.ended).toEqual({ code: 0, signal: null })
  await program.logged('The server is ending')
  await expect(fetch(`${url}/healthz`)).rejects.toThrow()
})
