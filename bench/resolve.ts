/**
 * The rows of targets.md on resolution: `resolve` and a merged model that exists, over a route that only does `select 1`,
 * on the embedded database and on a real PostgreSQL that grows to a million patch versions:
 *   node bench/resolve.ts [--versions 1000,10000,100000,1000000] [--seconds 5] [--rounds 3]
 * Prints the tables, writes bench/results/resolve.json, the plans of every query that a resolution sends
 * (bench/results/resolve-plans.txt) and the tables in bench/README.md.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { startPostgres } from '../tests/setup/postgres.ts'
import { portllm, startRegistry, type Registry } from '../tests/setup/registry.ts'
import { latency, requireWrk, type Latency } from './latency.ts'
import { writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'
import { explainResolve } from './resolve-plans.ts'
import { addManyVersions, growRegistry } from './resolve-growth.ts'
import { replaceTable } from './readme-table.ts'
import { middle } from './timing.ts'

const { values: options } = parseArgs({
  options: {
    versions: { type: 'string', default: '1000,10000,100000,1000000' },
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
  },
})
const [SECONDS, ROUNDS] = [Number(options.seconds), Number(options.rounds)]
const RESULTS = join(import.meta.dirname, 'results')

/** As many tensors as a Llama of 1.1 billion weights, all of them small: resolution looks at names, shapes and digests. */
const SHAPE = { hidden: 64, layers: 22, heads: 4, keyValueHeads: 2, intermediate: 176, vocabulary: 512, shards: 1 }
const TARGET = 'bench/llama@2.0'

const ROUTES = {
  'select 1': '/v1/health',
  'resolve, exact version': `/v1/resolve?patch=bench/qv@1.0.0&target=${TARGET}`,
  'resolve, range': `/v1/resolve?patch=bench/qv@%5E1.0.0&target=${TARGET}`,
  'resolve, range over 1,000 versions': `/v1/resolve?patch=bench/many@%5E1.0.0&target=${TARGET}`,
  'resolve, 4 patches': `/v1/resolve?${['qv', 'q', 'k', 'v'].map((name) => `patch=bench/${name}@1.0.0`).join('&')}&target=${TARGET}`,
  'merged model that exists': '/v1/models/bench/llama/2.0/merged?patch=bench/qv@1.0.0',
} as const
type RouteName = keyof typeof ROUTES
const NAMES = Object.keys(ROUTES) as RouteName[]
/** Not where the bench cannot write into the database. */
const ONLY_POSTGRES: RouteName = 'resolve, range over 1,000 versions'

async function publishAll(registry: Registry, folder: string): Promise<void> {
  const cli = { configFolder: join(folder, 'config') }
  await portllm(registry, ['org', 'create', 'bench'], cli)
  await writeLlamaModel(join(folder, 'v1'), SHAPE)
  await writeLlamaModel(join(folder, 'v2'), SHAPE, { seed: 2 })
  await portllm(registry, ['publish', join(folder, 'v1'), '--name', 'bench/llama', '--version', '1.0'], cli)
  await portllm(registry, ['publish', join(folder, 'v2'), '--name', 'bench/llama', '--version', '2.0', '--parent', 'bench/llama@1.0', '--parent-kind', 'continued-pretraining'], cli)
  for (const name of ['qv', 'q', 'k', 'v']) {
    const targets = [...name].map((letter) => `${letter}_proj`)
    await writeLlamaAdapter(join(folder, name), SHAPE, { rank: 8, alpha: 16, targets })
    await portllm(registry, ['publish', join(folder, name), '--name', `bench/${name}`, '--version', '1.0.0', '--base', 'bench/llama@1.0'], cli)
  }
  const response = await fetch(registry.url + ROUTES['merged model that exists'], { headers: { Authorization: `Bearer ${registry.token}`, Prefer: 'wait=60' } })
  const { state } = (await response.json()) as { state: string }
  if (state !== 'ready') throw new Error(`the merged model is ${state}`)
}

type Measured = Partial<Record<RouteName, Latency>>

/** Medians over the rounds; the routes take turns. */
async function measure(registry: Registry, names: readonly RouteName[]): Promise<Measured> {
  const all = new Map<RouteName, Latency[]>(names.map((name) => [name, []]))
  for (const name of names) await latency(registry.url + ROUTES[name], { token: registry.token, seconds: 2 })
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of names) all.get(name)!.push(await latency(registry.url + ROUTES[name], { token: registry.token, seconds: SECONDS }))
  }
  const of = (name: RouteName, what: keyof Latency) => middle(all.get(name)!.map((one) => one[what]))
  return Object.fromEntries(names.map((name) => [name, { p50: of(name, 'p50'), p99: of(name, 'p99'), requests: of(name, 'requests') }]))
}

interface Row { readonly deployment: string; readonly versions: number; readonly measured: Measured }

async function main(): Promise<void> {
  requireWrk()
  await mkdir(RESULTS, { recursive: true })
  const folder = await mkdtemp(join(tmpdir(), 'portllm-bench-resolve-'))
  const load = loadavg()[0]!
  const rows: Row[] = []
  const database = await startPostgres()
  try {
    const embedded = await startRegistry(join(folder, 'embedded'))
    try {
      await publishAll(embedded, join(folder, 'a'))
      rows.push({ deployment: 'embedded', versions: 4, measured: await measure(embedded, NAMES.filter((name) => name !== ONLY_POSTGRES)) })
    } finally {
      await embedded.stop()
    }
    const url = await database.createDatabase()
    const server = await startRegistry(join(folder, 'server'), { environment: { DATABASE_URL: url } })
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    try {
      await publishAll(server, join(folder, 'b'))
      await addManyVersions(sql, { name: 'many', like: 'qv', count: 1000 })
      for (const versions of options.versions.split(',').map(Number)) {
        const seconds = await growRegistry(sql, versions)
        console.error(`${versions} patch versions (${seconds.toFixed(0)} s)`)
        rows.push({ deployment: 'PostgreSQL', versions, measured: await measure(server, NAMES) })
      }
      await writeFile(join(RESULTS, 'resolve-plans.txt'), await explainResolve(url, { target: TARGET, patches: ['bench/qv@^1.0.0'] }))
    } finally {
      await sql.end()
      await server.stop()
    }
  } finally {
    await database.stop()
    await rm(folder, { recursive: true, force: true })
  }
  const machine = { processor: cpus()[0]?.model, processors: availableParallelism(), loadBefore: load }
  const command = `node bench/resolve.ts --seconds ${SECONDS} --rounds ${ROUNDS}`
  await writeFile(join(RESULTS, 'resolve.json'), `${JSON.stringify({ command, machine, rows }, null, 2)}\n`)
  const table = [`\`${command}\` on ${machine.processors} × ${machine.processor}, load average before ${load.toFixed(1)}.`, '', ...render(rows)].join('\n')
  console.log(table)
  await replaceTable('resolve table', table)
}

function render(rows: readonly Row[]): string[] {
  const lines = rows.flatMap(({ deployment, versions, measured }) => NAMES.filter((name) => measured[name]).map((name) => {
    const [own, one] = [measured[name]!, measured['select 1']!]
    const over = (what: 'p50' | 'p99') => (name === 'select 1' ? '' : (own[what] / one[what]).toFixed(1))
    const target = name === 'select 1' ? '' : name.startsWith('merged') ? 'p50 ≤ 2' : 'p50 ≤ 2, p99 ≤ 4'
    return `| ${deployment} | ${versions.toLocaleString('en')} | ${name} | ${own.p50.toFixed(2)} | ${own.p99.toFixed(2)} | ${over('p50')} | ${over('p99')} | ${target} |`
  }))
  return ['| database | patch versions | route | p50, ms | p99, ms | p50 over `select 1` | p99 over it | target |', '|---|---|---|---|---|---|---|---|', ...lines]
}

await main()
