import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { lock } from 'proper-lockfile'
import { compileObjects, makeFile, removeOld } from '../../gpu-runner/core/objects.ts'
import { run } from '../../gpu-runner/core/run-command.ts'
import { clangWithFuzzer } from '../setup/clang.ts'

const CORE = join(import.meta.dirname, '../../gpu-runner/core')
const SOURCES = join(CORE, 'fuzz')
const OUTPUT = join(import.meta.dirname, '../../build/fuzz')

/** Floating point as in build.ts. Tiles are small, so that small inputs have many; what the sanitizers find ends the process. */
const FLAGS = ['-std=c++17', '-O1', '-g1', '-ffp-contract=off', '-fno-math-errno', '-pthread', '-w', '-DPORTLLM_SMALL_TILES', '-D_GLIBCXX_ASSERTIONS',
  '-fsanitize=fuzzer-no-link,address,undefined', '-fno-sanitize-recover=all']
const LINK_FLAGS = ['-pthread', '-fsanitize=fuzzer,address,undefined']

export const TARGETS = ['header', 'adapter', 'planner'] as const
export type FuzzTarget = (typeof TARGETS)[number]

/** Longest input that is tried, in bytes. */
const MAX_LENGTH: Readonly<Record<FuzzTarget, number>> = { header: 800, adapter: 300, planner: 400 }

/** Compiles what has changed since the last time; gives the path of the target's program. */
export async function buildFuzzTarget(target: FuzzTarget | 'broken'): Promise<string> {
  await mkdir(OUTPUT, { recursive: true })
  const release = await lock(OUTPUT, { stale: 60_000, retries: { forever: true, minTimeout: 200, maxTimeout: 200 } })
  try {
    const common = { compiler: clangWithFuzzer(), flags: FLAGS, folder: OUTPUT }
    const core = (await readdir(CORE)).filter(isNeeded).sort().map((name) => join(CORE, name))
    const objects = [
      ...(await compileObjects(core, { ...common, headers: [CORE] })),
      ...(await compileObjects([join(SOURCES, `${target}.cpp`)], { ...common, headers: [CORE, SOURCES] })),
    ]
    const program = join(OUTPUT, `${target}-${createHash('sha256').update(JSON.stringify([LINK_FLAGS, objects])).digest('hex').slice(0, 12)}`)
    if (existsSync(program)) await utimes(program, new Date(), new Date())
    else await makeFile(program, common.compiler, [...LINK_FLAGS, ...objects])
    await removeOld(OUTPUT, /./)
    return program
  } finally {
    await release()
  }
}

/** Everything but what no target calls. */
function isNeeded(name: string): boolean {
  return name.endsWith('.cpp') && !/^(analysis|roofline|initial_|non_finite)/.test(name)
}

/** The committed inputs of a target: one in each line of its file, in base64. */
export async function readCorpus(target: FuzzTarget): Promise<Buffer[]> {
  const text = await readFile(join(SOURCES, 'corpus', `${target}.txt`), 'utf8')
  return text.split('\n').filter((line) => line !== '').map((line) => Buffer.from(line, 'base64'))
}

export async function writeCorpus(target: FuzzTarget, inputs: readonly Buffer[]): Promise<void> {
  const lines = inputs.map((input) => input.toString('base64')).sort((a, b) => a.length - b.length || (a < b ? -1 : 1))
  await writeFile(join(SOURCES, 'corpus', `${target}.txt`), lines.map((line) => `${line}\n`).join(''))
}

export interface FuzzRun {
  readonly executions: number
  /** Edges of the program that were reached. */
  readonly coverage: number
  readonly seconds: number
  /** How the run ended: `ok`, or what libFuzzer and the sanitizers said. */
  readonly finding: string
  /** The input that failed. */
  readonly input: Buffer | null
}

export interface FuzzOptions {
  readonly seed: number
  /** How long: a number of executions, or of seconds. */
  readonly runs?: number
  readonly seconds?: number
  /** Run at low priority. */
  readonly nice?: boolean
}

/** Runs a program on inputs and on what libFuzzer makes of them; `folder` receives the inputs that reach something new. */
export async function fuzz(program: string, folder: string, options: FuzzOptions): Promise<FuzzRun> {
  const target = basename(program).replace(/-.*/, '')
  const scratch = await mkdtemp(join(tmpdir(), `portllm-fuzz-${target}-`))
  const dictionary = join(SOURCES, `${target}.dict`)
  const args = [
    folder, `-seed=${options.seed}`, `-runs=${options.runs ?? -1}`, `-max_total_time=${options.seconds ?? 0}`, `-max_len=${MAX_LENGTH[target as FuzzTarget] ?? 100}`,
    // Long inputs at once: a short one is a tensor of one element.
    '-len_control=0', '-timeout=20', '-rss_limit_mb=1024', '-malloc_limit_mb=128', '-print_final_stats=1', `-artifact_prefix=${scratch}/`,
    ...(existsSync(dictionary) ? [`-dict=${dictionary}`] : []),
  ]
  const started = performance.now()
  const { code, output } = await new Promise<{ code: number | null; output: string }>((resolve, reject) => {
    const command = options.nice ? ['nice', '-n', '19', program, ...args] : [program, ...args]
    const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=1', UBSAN_OPTIONS: 'print_stacktrace=1' } })
    let output = ''
    child.stderr.on('data', (chunk) => (output = (output + chunk).slice(-200_000)))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, output }))
  })
  const failed = (await readdir(scratch)).map((name) => join(scratch, name))
  const input = failed[0] === undefined ? null : await readFile(failed[0])
  await rm(scratch, { recursive: true })
  return {
    executions: Number(/stat::number_of_executed_units:\s+(\d+)/.exec(output)?.[1] ?? 0),
    coverage: Number([...output.matchAll(/ cov: (\d+)/g)].at(-1)?.[1] ?? 0),
    seconds: (performance.now() - started) / 1000,
    finding: code === 0 ? 'ok' : output.slice(-6000),
    input,
  }
}

/** Keeps of the inputs in `from` only as many as reach what all of them reach. */
export async function minimized(program: string, from: string): Promise<Buffer[]> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-fuzz-minimized-'))
  const result = await run(program, ['-merge=1', folder, from])
  if (result === 'missing' || result.status !== 0) throw new Error(`${program} could not merge its inputs: ${result === 'missing' ? result : result.output.slice(-4000)}`)
  const inputs = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name))))
  await rm(folder, { recursive: true })
  return inputs
}
