import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmod, chown, mkdtemp, readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { installDebianPackages } from './debian-packages.ts'
import { freePort } from './free-port.ts'
import { startGuard } from './process-guard.ts'

export interface TestPostgres {
  /** URL of a database of this server. */
  url(database: string): string
  createDatabase(): Promise<string>
  stop(): Promise<void>
}

interface Owner { uid?: number; gid?: number }

/** A real PostgreSQL on a free loopback port, in a temporary folder, as a user that is not root. It ends with this process. */
export async function startPostgres(): Promise<TestPostgres> {
  const bin = await findBinaries()
  const owner = notRoot()
  const folder = await mkdtemp(join(tmpdir(), 'portllm-postgres-'))
  const guard = startGuard(folder)
  await chmod(folder, 0o755)
  if (owner.uid !== undefined) await chown(folder, owner.uid, owner.gid!)
  const data = join(folder, 'data')
  const made = spawnSync(join(bin, 'initdb'), ['-D', data, '-U', 'portllm', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync'], { ...owner, cwd: folder, encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr || made.error?.message}`)
  const port = await freePort()
  const server = spawn(join(bin, 'postgres'), ['-D', data, '-k', folder, '-h', '127.0.0.1', '-p', String(port), '-c', 'fsync=off', '-c', 'max_connections=200', '-c', 'shared_buffers=32MB'], { ...owner, cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  guard.watch(server)
  let log = ''
  server.stderr.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4000)))
  const url = (database: string) => `postgres://portllm:unused@127.0.0.1:${port}/${database}`
  const sql = postgres(url('postgres'), { max: 1, onnotice: () => {} })
  await ready(sql, server, () => log)
  return {
    url,
    createDatabase: () => createDatabase(url('postgres')),
    async stop() {
      await sql.end({ timeout: 1 })
      const closed = once(server, 'close')
      server.kill('SIGINT')
      await closed
      await guard.end()
    },
  }
}

/** A database of its own on the server of this URL. Returns its URL. */
export async function createDatabase(server: string): Promise<string> {
  const name = `registry_${randomUUID().replaceAll('-', '')}`
  const sql = postgres(server, { max: 1, onnotice: () => {} })
  await sql.unsafe(`create database ${name}`)
  await sql.end()
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.href
}

/** Folder of `postgres`, `pg_dump` and the rest; installs them where it can. */
export async function findBinaries(): Promise<string> {
  let bin = await newest()
  if (bin === null) {
    installDebianPackages('postgresql')
    bin = await newest()
  }
  if (bin === null) throw new Error('These tests need PostgreSQL. Install it: apt-get install postgresql')
  return bin
}

async function newest(): Promise<string | null> {
  const versions = await readdir('/usr/lib/postgresql').catch(() => [])
  const version = versions.map(Number).filter((number) => number >= 13).sort((a, b) => b - a)[0]
  return version === undefined ? null : `/usr/lib/postgresql/${version}/bin`
}

/** PostgreSQL refuses to run as root. */
function notRoot(): Owner {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout)
  return { uid: id('-u'), gid: id('-g') }
}

async function ready(sql: postgres.Sql, server: ChildProcess, log: () => string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (server.exitCode !== null) break
    if (await sql`select 1`.then(() => true, () => false)) return
    await sleep(100)
  }
  throw new Error(`PostgreSQL did not start: ${log()}`)
}
