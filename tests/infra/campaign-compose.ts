/**
 * `npm run campaign:compose`: the images of infra/Dockerfile and gpu-runner/Dockerfile (target cpu), their steps run for real
 * in roots made by debootstrap, then the services of infra/compose.yaml as processes in them, with exactly its environment,
 * commands, users, read-only roots and tmpfs, in a network of their own. PostgreSQL and S3 are those of the tests (Ceph in
 * place of Versity's gateway). Publishes a model, its evolved version and a patch, has them merged, compares the bytes.
 * Needs root, 3 GB of disk, and some minutes.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import postgres from 'postgres'
import { startCeph } from '../setup/ceph.ts'
import { startPostgres } from '../setup/postgres.ts'
import { portllm, ROOT, runCommand } from '../setup/registry.ts'
import { weightDigests } from '../setup/weight-digests.ts'
import { interpolate, readCompose, type Service } from './compose.ts'
import { buildImage, startContainer, type Image } from './image.ts'

const [mode, folder] = process.argv.slice(2)
if (mode === '--inside') await runServices(folder!)
else await main()

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('This needs root: it makes roots with debootstrap and starts services in them.')
  const room = await mkdtemp(join(tmpdir(), 'portllm-compose-'))
  const started = performance.now()
  try {
    const cache = join(ROOT, '.cache/images')
    console.log('infra/Dockerfile')
    const server = await buildImage('infra/Dockerfile', { target: null, folder: room, cache })
    console.log('gpu-runner/Dockerfile, target cpu')
    const runner = await buildImage('gpu-runner/Dockerfile', { target: 'cpu', folder: room, cache })
    await writeFile(join(room, 'images.json'), JSON.stringify({ server, runner }))
    const built = performance.now()
    console.log(`built in ${seconds(built - started)} s`)
    // A network namespace: the ports are free, and what listens on every address is reached by nobody.
    const inside = spawn('unshare', ['--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', process.execPath, import.meta.filename, '--inside', room], { stdio: 'inherit' })
    const [code] = await once(inside, 'close')
    if (code !== 0) throw new Error(`the services failed (${code})`)
    console.log(`\n| ${new Date().toISOString().slice(0, 10)} | ${seconds(built - started)} | ${seconds(performance.now() - built)} | identical |`)
  } finally {
    await rm(room, { recursive: true, force: true })
  }
}

async function runServices(room: string): Promise<void> {
  const images = JSON.parse(await readFile(join(room, 'images.json'), 'utf8')) as Record<'server' | 'runner', Image>
  const { services } = await readCompose()
  const hosts = Object.keys(services)
  const words: Record<string, string> = { POSTGRES_PASSWORD: 'database-word' }
  const [database, s3] = [await startPostgres(), await startCeph()]
  Object.assign(words, { S3_ACCESS_KEY: s3.accessKeyId, S3_SECRET_KEY: s3.secretAccessKey })
  await forward(5432, new URL(database.url('postgres')).port)
  await forward(7070, new URL(s3.endpoint).port)
  const sql = postgres(database.url('postgres'), { max: 1 })
  await sql`create database portllm`
  await sql.end()
  const running: { name: string; process: ChildProcess }[] = []

  async function start(name: string, { command, output }: { command?: readonly string[]; output?: 'pipe' } = {}): Promise<ChildProcess> {
    const service = services[name] as Service
    const image = service.image.includes('runner') ? images.runner : images.server
    const volumes: Record<string, string> = {}
    for (const [volume, place] of (service.volumes ?? []).map((text) => text.split(':') as [string, string])) {
      volumes[place] = join(room, 'volumes', volume)
      await mkdir(volumes[place], { recursive: true })
    }
    const environment = Object.fromEntries(Object.entries(service.environment ?? {}).map(([variable, text]) => [variable, interpolate(text, words)]))
    return startContainer(image, { command: command ?? service.command ?? image.command, environment, user: service.user, tmpfs: service.tmpfs, volumes, hosts, stdio: ['ignore', output ?? 'inherit', 'inherit'] })
  }
  /** A service that runs once, or another command in its place. */
  async function run(name: string, command?: readonly string[]): Promise<string> {
    console.log(`\n${name}: ${(command ?? services[name]!.command!).join(' ')}`)
    const child = await start(name, { command, output: 'pipe' })
    let text = ''
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    const [code] = await once(child, 'close')
    if (code !== 0) throw new Error(`${name} ended with ${code}: ${text}`)
    return text
  }
  async function keep(name: string): Promise<void> {
    const child = await start(name)
    running.push({ name, process: child })
    const check = services[name]!.healthcheck?.test.slice(1)
    for (let tries = 0; check !== undefined; tries++) {
      if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`)
      if (await run(name, check).then(() => true, () => false)) break
      if (tries === 30) throw new Error(`${name} did not become healthy`)
      await sleep(1_000)
    }
    console.log(`${name} runs`)
  }

  try {
    await run('folders')
    await run('bucket')
    await run('migrate')
    await keep('server')
    await keep('dispatcher')
    const { adminToken } = JSON.parse(await run('server', ['node', 'api/server.ts', '--new-admin-token', '--json'])) as { adminToken: string }
    const registry = { url: 'http://localhost:8080', token: adminToken }
    const configFolder = join(room, 'config')
    const call = (...args: string[]) => portllm(registry, args, { configFolder })
    words.PORTLLM_RUNNER_TOKEN = (await call('token', 'create', 'runner', '--scope', 'runner')).token
    await keep('runner')
    const fixture = join(ROOT, 'tests/fixtures/llama')
    await call('org', 'create', 'lab')
    await call('publish', join(fixture, 'base'), '--name', 'lab/llama', '--version', '1.0')
    await call('publish', join(fixture, 'evolved'), '--name', 'lab/llama', '--version', '2.0', '--parent', 'lab/llama@1.0')
    const { models } = JSON.parse(await readFile(join(ROOT, 'tests/fixtures/scores.json'), 'utf8'))
    const patch = join(fixture, models.llama.patches[0].name)
    await call('publish', patch, '--name', 'lab/patch', '--version', '1.0.0', '--base', 'lab/llama@1.0')
    const [merged, local] = [join(room, 'merged'), join(room, 'local')]
    await call('get', 'lab/llama@2.0', '--patch', 'lab/patch@1.0.0', '--output', merged)
    const { code, stderr } = await runCommand(null, ['merge', join(fixture, 'evolved'), patch, '--base', join(fixture, 'base'), '--output', local], { configFolder })
    if (code !== 0) throw new Error(stderr)
    const [theirs, ours] = [await weightDigests(merged), await weightDigests(local)]
    if (ours.size === 0 || !isDeepStrictEqual(theirs, ours)) throw new Error(`The registry's weights are ${[...theirs]}, those of a local merge ${[...ours]}`)
    console.log(`\nidentical: ${[...theirs.keys()].join(', ')}`)
    for (const { name, process: child } of running.splice(0).reverse()) {
      child.kill('SIGTERM')
      const [ended] = await once(child, 'close')
      console.log(`${name} ended with ${ended}`)
      if (ended !== 0) throw new Error(`${name} did not end well: ${ended}`)
    }
  } finally {
    for (const { process: child } of running) child.kill('SIGKILL')
    await s3.stop()
    await database.stop()
  }
  process.exit(0)
}

/** The port that compose.yaml names leads to the one that the test's service got. */
async function forward(from: number, to: string): Promise<void> {
  const server = createServer((client) => {
    const upstream = connect(Number(to), '127.0.0.1')
    client.pipe(upstream).pipe(client)
    client.on('error', () => upstream.destroy())
    upstream.on('error', () => client.destroy())
  }).listen(from, '127.0.0.1')
  await once(server, 'listening')
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(0)
}
