/**
 * Merge on read, the serving rows of targets.md: GET of a computed merged model over GET of the plain model from the same
 * server, and over nginx with the same bytes as files, in one run, page cache warm, with curl as the client:
 *   node bench/serve-merged.ts [--runs 7] [--ranks 32,64] [--folder build/bench-serve] [--keep]
 * Prints the table, writes bench/results/serve-merged.json and the table in bench/README.md, removes its big files.
 * With --keep the registry's data stays, and the next run with the same folder begins there.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { portllm, startRegistry, type Registry } from '../tests/setup/registry.ts'
import { replaceTable } from './readme-table.ts'
import { startNginx } from './nginx.ts'
import { middle } from './timing.ts'
import { ALL_LINEARS, LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'

const ROOT = join(import.meta.dirname, '..')
const run = promisify(execFile)

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '7' },
    ranks: { type: 'string', default: '32,64' },
    folder: { type: 'string', default: join(ROOT, 'build', 'bench-serve') },
    keep: { type: 'boolean', default: false },
    json: { type: 'string', default: join(import.meta.dirname, 'results', 'serve-merged.json') },
  },
})
const RUNS = Number(options.runs)
const folder = options.folder

interface Row { readonly name: string; readonly patch: string; readonly rank: number; readonly targets: readonly string[]; readonly target: string }
const ROWS: readonly Row[] = [
  { name: 'q,v r=8', patch: 'qv-8', rank: 8, targets: ['q_proj', 'v_proj'], target: '≥ 0.95' },
  { name: 'all linears r=16', patch: 'all-16', rank: 16, targets: ALL_LINEARS, target: '≥ 0.85' },
  ...options.ranks.split(',').filter(Boolean).map((rank) => ({ name: `all linears r=${rank}`, patch: `all-${rank}`, rank: Number(rank), targets: ALL_LINEARS, target: '' })),
]

interface Served { readonly urls: readonly string[]; readonly bytes: number; readonly storedBytes: number }

async function publishAll(registry: Registry): Promise<void> {
  const cli = { configFolder: join(folder, 'config') }
  const shape = LLAMA_SHAPES['1.1b']
  await writeLlamaModel(join(folder, 'model'), shape)
  await portllm(registry, ['org', 'create', 'bench'], cli)
  await portllm(registry, ['publish', join(folder, 'model'), '--name', 'bench/llama', '--version', '1.0'], cli)
  await rm(join(folder, 'model'), { recursive: true })
  for (const { patch, rank, targets } of ROWS) {
    await writeLlamaAdapter(join(folder, patch), shape, { rank, alpha: 2 * rank, targets })
    await portllm(registry, ['publish', join(folder, patch), '--name', `bench/${patch}`, '--version', '1.0.0', '--base', 'bench/llama@1.0'], cli)
  }
}

async function ask(registry: Registry, path: string): Promise<any> {
  const response = await fetch(registry.url + path, { headers: { Authorization: `Bearer ${registry.token}`, Prefer: 'wait=60' } })
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return response.json()
}

function weightsOf(registry: Registry, path: string, { files, storedBytes = 0 }: { files: { path: string; size: number }[]; storedBytes?: number }): Served {
  const weights = files.filter((file) => file.path.endsWith('.safetensors'))
  return { urls: weights.map((file) => `${registry.url}${path}/files/${file.path}`), bytes: weights.reduce((sum, { size }) => sum + size, 0), storedBytes }
}

async function merged(registry: Registry, { patch }: Row): Promise<Served> {
  for (;;) {
    const answer = await ask(registry, `/v1/models/bench/llama/1.0/merged?patch=bench/${patch}&storage=computed`)
    if (answer.state === 'ready' && answer.storage !== 'computed') throw new Error(`${patch} is ${answer.storage}`)
    if (answer.state === 'ready') return weightsOf(registry, `/v1/derivations/${answer.id}`, answer)
  }
}

/** Seconds for all files, one after the other over one connection. */
async function fetchAll({ urls, bytes }: Served): Promise<number> {
  const start = performance.now()
  const { stdout } = await run('curl', ['-sS', '--fail', '-w', '%{size_download}\n', ...urls.flatMap((url) => ['-o', '/dev/null', url])])
  const seconds = (performance.now() - start) / 1000
  const got = stdout.trim().split('\n').reduce((sum, size) => sum + Number(size), 0)
  if (got !== bytes) throw new Error(`${got} of ${bytes} bytes came`)
  return seconds
}

async function residentPeak(registry: Registry): Promise<number> {
  return Number(/VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${registry.process.pid}/status`, 'utf8'))![1]) * 1024
}

/** A registry on the data of an earlier run has told its token there. */
async function start(): Promise<Registry> {
  const [data, known] = [join(folder, 'registry'), join(folder, 'token')]
  const token = existsSync(known) ? await readFile(known, 'utf8') : undefined
  const registry = await startRegistry(data, token === undefined ? {} : { token })
  if (token === undefined) {
    await publishAll(registry)
    await writeFile(known, registry.token)
  }
  return registry
}

/** The same bytes as files in a folder. */
async function saveFiles({ urls }: Served, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  for (const url of urls) await run('curl', ['-sS', '--fail', '-o', join(to, url.split('/').at(-1)!), url])
}

interface Line { readonly name: string; readonly target: string; readonly served: Served }

async function measure(registry: Registry, lines: readonly Line[]) {
  for (const { served } of lines) await fetchAll(served)
  const load = loadavg()[0]!
  const seconds: number[][] = lines.map(() => [])
  // Interleaved, so that a busy minute of the machine falls on all of them.
  for (let i = 0; i < RUNS; i++) {
    console.error(`round ${i + 1} of ${RUNS}`)
    for (const [index, { served }] of lines.entries()) seconds[index]!.push(await fetchAll(served))
  }
  /** Of neighbours in time; throughput is per byte, since headers differ. */
  const over = (index: number, other: number) => middle(seconds[index]!.map((own, round) => (seconds[other]![round]! / lines[other]!.served.bytes / own) * lines[index]!.served.bytes))
  return {
    command: `node bench/serve-merged.ts --runs ${RUNS} --ranks ${options.ranks}`,
    machine: { processor: cpus()[0]?.model, processors: availableParallelism(), loadBefore: load },
    rows: lines.map(({ name, target, served: { bytes, storedBytes } }, index) => ({
      name, target, bytes, storedBytes, seconds: seconds[index]!, median: middle(seconds[index]!), minimum: Math.min(...seconds[index]!), overPlain: over(index, 0), overNginx: over(index, lines.length - 1),
    })),
    serverPeakBytes: await residentPeak(registry),
  }
}

async function main(): Promise<void> {
  await mkdir(folder, { recursive: true })
  const registry = await start()
  try {
    const plain = weightsOf(registry, '/v1/models/bench/llama/1.0', await ask(registry, '/v1/models/bench/llama/1.0'))
    const computed: Line[] = []
    for (const row of ROWS) computed.push({ name: row.name, target: row.target, served: await merged(registry, row) })
    const files = join(folder, 'static')
    await saveFiles(computed[0]!.served, files)
    const nginx = await startNginx(files, join(folder, 'nginx'))
    try {
      const { urls, bytes } = computed[0]!.served
      const lines = [
        { name: 'plain', target: '', served: plain },
        ...computed,
        { name: `nginx, the bytes of ${ROWS[0]!.name} as files`, target: '', served: { urls: urls.map((url) => `${nginx.url}/${url.split('/').at(-1)!}`), bytes, storedBytes: bytes } },
      ]
      const results = await measure(registry, lines)
      await mkdir(join(import.meta.dirname, 'results'), { recursive: true })
      await writeFile(options.json, `${JSON.stringify(results, null, 2)}\n`)
      const table = render(results)
      console.log(table)
      await replaceTable('serve table', table)
    } finally {
      await nginx.stop()
    }
  } finally {
    await registry.stop()
  }
}

function render({ command, machine, rows, serverPeakBytes }: Awaited<ReturnType<typeof measure>>): string {
  const lines = rows.map(({ name, target, bytes, storedBytes, median, minimum, overPlain, overNginx }, index) => {
    const [first, last] = [index === 0, index === rows.length - 1]
    const stored = first || last ? '' : `${(storedBytes / 1e3).toFixed(0)} kB`
    return `| ${name} | ${median.toFixed(2)} (${minimum.toFixed(2)}) | ${(bytes / median / 1e9).toFixed(2)} | ${first || last ? '' : overPlain.toFixed(2)} | ${target} | ${last ? '' : overNginx.toFixed(2)} | ${last ? '' : '≥ 0.6'} | ${stored} |`
  })
  return [
    `\`${command}\` on ${machine.processors} × ${machine.processor}, load average before ${machine.loadBefore.toFixed(1)}; the server's resident peak was ${(serverPeakBytes / 1e6).toFixed(0)} MB.`,
    '',
    '| GET of the 2.2 GB model | median (minimum) s | GB/s | over the plain model | target | over nginx | target | stored for it |',
    '|---|---|---|---|---|---|---|---|',
    ...lines,
  ].join('\n')
}

try {
  await main()
} finally {
  if (!options.keep) await rm(folder, { recursive: true, force: true })
}
