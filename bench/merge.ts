/**
 * The merge table of targets.md, in one run on one machine, page cache warm:
 *   node bench/merge.ts [--runs 5] [--peft-runs 3] [--no-peft] [--folder build/bench] [--keep]
 * Prints the table, writes bench/results/merge.json and the table in bench/README.md, removes its big files.
 */
import { execFile, spawn } from 'node:child_process'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { loadCore } from '../gpu-runner/core/core.ts'
import { compareModels } from './compare-models.ts'
import { benchKernel, middle } from './kernel.ts'
import { ALL_LINEARS, LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'
import type { MergeRun } from './merge-run.ts'

const ROOT = join(import.meta.dirname, '..')
const PYTHON = join(ROOT, '.cache', 'python', 'bin', 'python')
const run = promisify(execFile)

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    'peft-runs': { type: 'string', default: '3' },
    'no-peft': { type: 'boolean', default: false },
    folder: { type: 'string', default: join(ROOT, 'build', 'bench') },
    keep: { type: 'boolean', default: false },
    json: { type: 'string', default: join(import.meta.dirname, 'results', 'merge.json') },
  },
})
const RUNS = Number(options.runs)
const PEFT_RUNS = options['no-peft'] || !existsSync(PYTHON) ? 0 : Number(options['peft-runs'])
const folder = options.folder
const [model, output, peftOutput] = ['model', 'output', 'peft-output'].map((name) => join(folder, name)) as [string, string, string]

interface Timing {
  readonly seconds: number[]
  readonly median: number
  readonly minimum: number
}

const ADAPTERS = {
  'all-linear r=16': { rank: 16, alpha: 32, targets: ALL_LINEARS },
  'q,v r=8': { rank: 8, alpha: 16, targets: ['q_proj', 'v_proj'] },
} as const
type AdapterName = keyof typeof ADAPTERS
const adapterFolder = (name: AdapterName) => join(folder, `adapter-${name.replace(/\W+/g, '-')}`)

/** Ends with the caches written out, so that no run pays for the dirty pages of the one before. */
async function clean(): Promise<void> {
  await rm(output, { recursive: true, force: true })
  await run('sync')
}

async function timed(body: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await body()
  return (performance.now() - start) / 1000
}

function timing(seconds: number[]): Timing {
  return { seconds, median: middle(seconds), minimum: Math.min(...seconds) }
}

async function mergeOnce(adapter: AdapterName, what: 'complete' | 'changed', sync = false): Promise<MergeRun & { process: number }> {
  let text = ''
  const process_ = await timed(async () => {
    text = (await run(process.execPath, [join(import.meta.dirname, 'merge-run.ts'), model, adapterFolder(adapter), output, what, sync ? 'sync' : ''])).stdout
  })
  return { ...(JSON.parse(text) as MergeRun), process: process_ }
}

/** Peak memory of the merging process, sampled from outside every 2 ms: anonymous, and all that is resident. */
async function peakMemory(adapter: AdapterName): Promise<{ anonymous: number; resident: number; idleNode: number }> {
  await clean()
  const watch = async (args: string[]) => {
    const child = spawn(process.execPath, args, { stdio: 'ignore' })
    const ended = new Promise((resolve) => child.on('close', resolve))
    let [anonymous, resident, alive] = [0, 0, true]
    void ended.then(() => (alive = false))
    while (alive) {
      const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '')
      const read = (key: string) => Number(status.match(new RegExp(`${key}:\\s+(\\d+) kB`))?.[1] ?? 0) * 1024
      anonymous = Math.max(anonymous, read('RssAnon'))
      resident = Math.max(resident, read('VmHWM'))
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    return { anonymous, resident }
  }
  const idle = await watch(['-e', 'setTimeout(() => {}, 300)'])
  const merging = await watch([join(import.meta.dirname, 'merge-run.ts'), model, adapterFolder(adapter), output, 'complete', ''])
  return { ...merging, idleNode: idle.anonymous }
}

async function warm(): Promise<void> {
  for (const name of await readdir(model)) {
    for await (const _ of createReadStream(join(model, name), { highWaterMark: 1 << 22 })) void _
  }
}

async function main() {
  await mkdir(folder, { recursive: true })
  await loadCore()
  console.error(`writing the model (2.2 GB) and the adapters to ${folder}`)
  await writeLlamaModel(model, LLAMA_SHAPES['1.1b'])
  for (const name of Object.keys(ADAPTERS) as AdapterName[]) await writeLlamaAdapter(adapterFolder(name), LLAMA_SHAPES['1.1b'], ADAPTERS[name])
  await run('sync')
  await warm()
  const load = loadavg()[0]!

  const seconds: Record<string, number[]> = {}
  const bytes: Record<string, number> = {}
  let cloned = false
  const note = (name: string, value: number) => (seconds[name] ??= []).push(value)
  // Interleaved, so that a busy minute of the machine falls on all of them.
  for (let i = 0; i < RUNS; i++) {
    console.error(`round ${i + 1} of ${RUNS}`)
    await clean()
    note('cp', await timed(() => run('cp', ['-r', model, output])))
    await clean()
    note('cp and sync', await timed(() => run('sh', ['-c', 'cp -r "$0" "$1" && sync "$1"/*', model, output])))
    for (const adapter of Object.keys(ADAPTERS) as AdapterName[]) {
      for (const what of ['complete', 'changed'] as const) {
        await clean()
        const result = await mergeOnce(adapter, what)
        note(`${adapter}, ${what}`, result.seconds)
        note(`${adapter}, ${what}, whole process`, result.process)
        bytes[`${adapter}, ${what}`] = result.bytesWritten
        cloned ||= result.cloned
      }
      await clean()
      note(`${adapter}, complete, synced`, (await mergeOnce(adapter, 'complete', true)).seconds)
    }
  }

  const peft: Record<string, { seconds: Timing; peakBytes: number; differing: number; elements: number }> = {}
  for (const adapter of PEFT_RUNS > 0 ? (Object.keys(ADAPTERS) as AdapterName[]) : []) {
    const runs: { seconds: number; peakBytes: number }[] = []
    for (let i = 0; i < PEFT_RUNS; i++) {
      console.error(`PEFT, ${adapter}, ${i + 1} of ${PEFT_RUNS}`)
      await clean()
      await rm(peftOutput, { recursive: true, force: true })
      const { stdout } = await run(PYTHON, [join(import.meta.dirname, 'merge_peft.py'), model, adapterFolder(adapter), peftOutput], { maxBuffer: 1 << 26 })
      runs.push(JSON.parse(stdout.trim().split('\n').at(-1)!))
    }
    await clean()
    await mergeOnce(adapter, 'complete')
    const { differing, elements } = await compareModels(output, peftOutput)
    peft[adapter] = { seconds: timing(runs.map((one) => one.seconds)), peakBytes: Math.max(...runs.map((one) => one.peakBytes)), differing, elements }
    await rm(peftOutput, { recursive: true, force: true })
  }

  const memory = await peakMemory('all-linear r=16')
  const kernel = await benchKernel(availableParallelism(), Math.max(RUNS, 9))
  const results = {
    command: `node bench/merge.ts --runs ${RUNS} --peft-runs ${PEFT_RUNS}`,
    machine: { processor: cpus()[0]?.model, processors: availableParallelism(), loadBefore: load, path: (await loadCore()).path, cloned },
    seconds: Object.fromEntries(Object.entries(seconds).map(([name, values]) => [name, timing(values)])),
    bytes, peft, memory, kernel,
  }
  await mkdir(join(import.meta.dirname, 'results'), { recursive: true })
  await writeFile(options.json, `${JSON.stringify(results, null, 2)}\n`)
  const table = render(results)
  console.log(table)
  await writeReadme(table)
}

function render(results: {
  command: string
  machine: { processor: string | undefined; processors: number; loadBefore: number; path: string; cloned: boolean }
  seconds: Record<string, Timing>
  peft: Record<string, { seconds: Timing; peakBytes: number; differing: number; elements: number }>
  memory: { anonymous: number; resident: number; idleNode: number }
  kernel: Awaited<ReturnType<typeof benchKernel>>
}): string {
  const { seconds, peft, memory, kernel, machine } = results
  const cp = seconds['cp']!.median
  const mb = (value: number) => `${(value / 1e6).toFixed(0)} MB`
  const line = (name: string, reference: string, target: string) => {
    const own = seconds[name]!
    const whole = seconds[`${name}, whole process`]
    const oracle = peft[name.replace(/, (complete|changed)$/, '')]
    const overPeft = oracle && name.endsWith('complete') ? `${(oracle.seconds.median / own.median).toFixed(1)} × faster than PEFT (${oracle.seconds.median.toFixed(1)} s)` : ''
    return `| ${name} | ${own.median.toFixed(2)} (${own.minimum.toFixed(2)})${whole ? `; with Node's start ${whole.median.toFixed(2)}` : ''} | ${(own.median / cp).toFixed(2)} × ${reference} | ${overPeft} | ${target} |`
  }
  const synced = (adapter: string) =>
    `| ${adapter}, complete, fsync | ${seconds[`${adapter}, complete, synced`]!.median.toFixed(2)} | ${(seconds[`${adapter}, complete, synced`]!.median / seconds['cp and sync']!.median).toFixed(2)} × cp and sync (${seconds['cp and sync']!.median.toFixed(2)} s) | | |`
  return [
    `\`${results.command}\` on ${machine.processors} × ${machine.processor}, path ${machine.path}, file system ${machine.cloned ? 'clones' : 'does not clone'}, load average before ${machine.loadBefore.toFixed(1)}.`,
    '',
    '| merge of the 2.2 GB model | median (minimum) s | over `cp` | over PEFT | target |',
    '|---|---|---|---|---|',
    `| \`cp\` | ${cp.toFixed(2)} (${seconds['cp']!.minimum.toFixed(2)}) | | | |`,
    line('all-linear r=16, complete', 'cp', '≤ 1.1 × cp; ≥ 20 × PEFT'),
    line('q,v r=8, complete', 'cp', '≤ 1.0 × cp (≤ 0.12 where the file system clones); ≥ 5 × PEFT'),
    line('q,v r=8, changed', 'cp', '≤ 0.15 × cp'),
    line('all-linear r=16, changed', 'cp', ''),
    synced('all-linear r=16'),
    synced('q,v r=8'),
    '',
    '| bits against PEFT\'s default merge | differing elements | target |',
    '|---|---|---|',
    ...Object.entries(peft).map(([name, { differing, elements }]) => `| ${name} | ${differing} of ${elements} | 0 |`),
    '',
    '| memory at the peak, all-linear r=16 | | target |',
    '|---|---|---|',
    `| merging process, anonymous | ${mb(memory.anonymous)}, of which an idle Node has ${mb(memory.idleNode)} | ≤ 64 MB for the core, ≤ 256 MB for the runner |`,
    `| merging process, resident | ${mb(memory.resident)} | |`,
    ...Object.entries(peft).map(([name, { peakBytes }]) => `| PEFT, ${name} | ${mb(peakBytes)} | |`),
    '',
    `| kernel, ${machine.processors} threads, memory to memory | GB/s of W | over memcpy (${(kernel.memcpyBytesPerSecond / 1e9).toFixed(1)} GB/s) | over the roofline (${(kernel.fmaPerSecond / 1e9).toFixed(0)} G fma/s) | target |`,
    '|---|---|---|---|---|',
    ...kernel.kernels.map(({ rank, figures, bytesPerSecond, overMemcpy, overRoofline }) =>
      `| r=${rank}${figures ? ', with the receipt\'s figures' : ''} | ${(bytesPerSecond / 1e9).toFixed(1)} | ${overMemcpy.toFixed(2)} | ${overRoofline.toFixed(2)} | ${figures ? '' : '≥ 0.9 of the roofline'} |`),
  ].join('\n')
}

async function writeReadme(table: string): Promise<void> {
  const path = join(import.meta.dirname, 'README.md')
  const text = await readFile(path, 'utf8')
  const [begin, end] = ['<!-- merge table -->', '<!-- end of merge table -->']
  await writeFile(path, `${text.slice(0, text.indexOf(begin) + begin.length)}\n${table}\n${text.slice(text.indexOf(end))}`)
}

try {
  await main()
} finally {
  if (!options.keep) await rm(folder, { recursive: true, force: true })
}
