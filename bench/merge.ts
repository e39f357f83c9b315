/**
 * The merge table of targets.md, in one run on one machine, page cache warm:
 *   node bench/merge.ts [--runs 5] [--other-runs 3] [--without peft,axolotl,several,reflink,memory,kernel] [--folder build/bench] [--keep]
 * Prints the table, writes bench/results/merge.json and the table in bench/README.md, removes its big files. What cannot
 * be measured here is said in its place.
 */
import { createReadStream } from 'node:fs'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { loadCore } from '../gpu-runner/core/core.ts'
import { compareModels } from './compare-models.ts'
import { benchKernel } from './kernel.ts'
import { ALL_LINEARS, LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'
import type { MergeRun } from './merge-run.ts'
import { renderMergeTable, type MergeResults, type OtherResult } from './merge-table.ts'
import { axolotl, peft, type OtherMerger } from './other-mergers.ts'
import { peakMemory } from './peak-memory.ts'
import { benchReflink } from './reflink.ts'
import { replaceTable } from './readme-table.ts'
import { severalPatches } from './several-patches.ts'
import { prepare, run, timed, timing } from './timing.ts'

const ROOT = join(import.meta.dirname, '..')
const RUN = join(import.meta.dirname, 'merge-run.ts')
const CLI = join(ROOT, 'cli', 'main.ts')

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    'other-runs': { type: 'string', default: '3' },
    without: { type: 'string', default: '' },
    folder: { type: 'string', default: join(ROOT, 'build', 'bench') },
    keep: { type: 'boolean', default: false },
    json: { type: 'string', default: join(import.meta.dirname, 'results', 'merge.json') },
  },
})
const RUNS = Number(options.runs)
const OTHER_RUNS = Number(options['other-runs'])
const without = new Set(options.without.split(','))
const { folder } = options
const [model, output, otherOutput, cache] = ['model', 'output', 'other-output', 'cache'].map((name) => join(folder, name)) as [string, string, string, string]

const ADAPTERS = {
  'all-linear r=16': { rank: 16, alpha: 32, targets: ALL_LINEARS },
  'q,v r=8': { rank: 8, alpha: 16, targets: ['q_proj', 'v_proj'] },
} as const
type AdapterName = keyof typeof ADAPTERS
const names = Object.keys(ADAPTERS) as AdapterName[]
const adapterFolder = (name: AdapterName) => join(folder, `adapter-${name.replace(/\W+/g, '-')}`)
const say = (text: string) => console.error(`${(performance.now() / 1000).toFixed(0).padStart(4)} s  ${text}`)

/** What the body gives, or why there is nothing: one part that fails does not lose the others. */
async function part<T>(name: string, body: () => Promise<T>): Promise<T | string> {
  if (without.has(name)) return 'left out of this run'
  say(name)
  try {
    return await body()
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).trim().split('\n').at(-1)!
    say(`${name} failed: ${reason}`)
    return `could not be measured here: ${reason}`
  }
}

async function mergeOnce(adapter: AdapterName, what: 'complete' | 'changed', sync = false): Promise<MergeRun & { process: number }> {
  let text = ''
  const whole = await timed(async () => {
    text = (await run(process.execPath, [RUN, model, adapterFolder(adapter), output, what, sync ? 'sync' : ''])).stdout
  })
  return { ...(JSON.parse(text) as MergeRun), process: whole }
}

const commandArgs = (adapter: AdapterName) => [CLI, 'merge', model, adapterFolder(adapter), '--output', output, '--quiet', '--json']
const commandEnv = { ...process.env, XDG_CACHE_HOME: cache }

/** `cp` and our merges in turns, so that a busy minute of the machine falls on all of them. */
async function benchMerges(): Promise<Pick<MergeResults, 'seconds' | 'profiles' | 'bytes'>> {
  const seconds: Record<string, number[]> = {}
  const profiles: MergeResults['profiles'] = {}
  const bytes: Record<string, number> = {}
  const note = (name: string, value: number) => (seconds[name] ??= []).push(value)
  // Digests of the inputs are known from then on, as they are to someone who has merged or published them before.
  for (const adapter of names) {
    await prepare(output)
    await run(process.execPath, commandArgs(adapter), { env: commandEnv, maxBuffer: 1 << 26 })
  }
  for (let round = 1; round <= RUNS; round++) {
    say(`round ${round} of ${RUNS}`)
    await prepare(output)
    note('cp', await timed(() => run('cp', ['-r', model, output])))
    await prepare(output)
    note('cp and sync', await timed(() => run('sh', ['-c', 'cp -r "$0" "$1" && sync "$1"/*', model, output])))
    for (const adapter of names) {
      for (const what of ['complete', 'changed'] as const) {
        await prepare(output)
        const result = await mergeOnce(adapter, what)
        note(`${adapter}, ${what}`, result.seconds)
        note(`${adapter}, ${what}, whole process`, result.process)
        bytes[`${adapter}, ${what}`] = result.bytesWritten
        profiles[`${adapter}, ${what}`] = result.profile
      }
      await prepare(output)
      note(`${adapter}, complete, synced`, (await mergeOnce(adapter, 'complete', true)).seconds)
      await prepare(output)
      note(`${adapter}, command`, await timed(() => run(process.execPath, commandArgs(adapter), { env: commandEnv, maxBuffer: 1 << 26 })))
    }
  }
  return { seconds: Object.fromEntries(Object.entries(seconds).map(([name, values]) => [name, timing(values)])), profiles, bytes }
}

/** Another tool's merges, and how many elements of ours have other bits than its. */
async function benchOther(merger: OtherMerger): Promise<Record<string, OtherResult>> {
  const results: Record<string, OtherResult> = {}
  for (const adapter of names) {
    const runs: { seconds: number; peakBytes: number }[] = []
    for (let i = 1; i <= OTHER_RUNS; i++) {
      say(`${merger.name}, ${adapter}, ${i} of ${OTHER_RUNS}`)
      await prepare(otherOutput)
      runs.push(await merger.merge(model, adapterFolder(adapter), otherOutput))
    }
    await rm(output, { recursive: true, force: true })
    await mergeOnce(adapter, 'complete')
    results[adapter] = { seconds: timing(runs.map((one) => one.seconds)), peakBytes: Math.max(...runs.map((one) => one.peakBytes)), ...(await compareModels(output, otherOutput)) }
    await rm(otherOutput, { recursive: true, force: true })
  }
  return results
}

async function benchMemory(): Promise<Exclude<MergeResults['memory'], string>> {
  const adapter = 'all-linear r=16'
  await prepare(output)
  const core = await peakMemory([RUN, model, adapterFolder(adapter), output, 'complete', ''])
  await prepare(output)
  const command = await peakMemory(commandArgs(adapter), commandEnv)
  // Node with the same modules loaded, and nothing merged.
  const idle = await peakMemory([join(import.meta.dirname, 'idle.ts')])
  return { core, command, idle }
}

async function main() {
  await mkdir(folder, { recursive: true })
  await loadCore()
  say(`writing the model (2.2 GB) and the adapters to ${folder}`)
  await writeLlamaModel(model, LLAMA_SHAPES['1.1b'])
  for (const name of names) await writeLlamaAdapter(adapterFolder(name), LLAMA_SHAPES['1.1b'], ADAPTERS[name])
  await run('sync')
  for (const name of await readdir(model)) {
    for await (const _ of createReadStream(join(model, name), { highWaterMark: 1 << 22 })) void _
  }
  const load = loadavg()[0]!
  const merges = await benchMerges()
  const kernel = await part('kernel', () => benchKernel(availableParallelism(), Math.max(2 * RUNS, 9)))
  const memory = await part('memory', benchMemory)
  const reflink = await part('reflink', async () => (await benchReflink(ADAPTERS['q,v r=8'], RUNS)) ?? 'no file system that shares blocks could be mounted here (it takes root, xfsprogs and a loop device)')
  const several = await part('several', () => severalPatches(folder, [4, 16]))
  const others: MergeResults['others'] = {}
  others['PEFT'] = await part('peft', async () => benchOther(await peft()))
  others['axolotl'] = await part('axolotl', async () => benchOther(await axolotl()))

  const results: MergeResults = {
    command: `node bench/merge.ts${process.argv.slice(2).map((argument) => ` ${argument}`).join('')}`,
    machine: { processor: cpus()[0]?.model ?? 'unknown', processors: availableParallelism(), loadBefore: load, path: (await loadCore()).path },
    ...merges, others, memory, kernel, reflink, several,
  }
  await mkdir(join(import.meta.dirname, 'results'), { recursive: true })
  await writeFile(options.json, `${JSON.stringify(results, null, 2)}\n`)
  const table = renderMergeTable(results)
  console.log(table)
  await replaceTable('merge table', table)
  say('done')
}

try {
  await main()
} finally {
  if (!options.keep) await rm(folder, { recursive: true, force: true })
}
