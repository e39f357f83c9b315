/**
 * The paper's claim on a small model, with this program's own jobs:
 *   node bench/reproduce/reproduce.ts [--plan tiny|small] [--folder build/reproduce] [--seeds 1,2,3] [--only KIND,…] [--publish] [--json]
 * A list of steps, each done once: what was done is in <folder>/results.jsonl, and the same command goes on after it, or
 * within a training at its last checkpoint. After every step <folder>/report.md says what is known by then. --only does the
 * steps of some kinds (data, evolve, finetune, alone, score, analyze; `report` none). --publish writes what is known into
 * bench/results/reproduce.json (findings), reproduce.jsonl (all results), docs/reproduction.md and patch/transfer-calibration.json.
 */
import { createWriteStream } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { constants, loadavg, setPriority } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import lockfile from 'proper-lockfile'
import type { PythonProgress } from '../../gpu-runner/python.ts'
import { findings } from './findings.ts'
import { openJournal, type Journal } from './journal.ts'
import { PLAN_NAMES, PLANS, type Plan, type PlanName } from './plan.ts'
import { publish, writeReport, type ReportInput } from './report.ts'
import { isOutputThere, runStep } from './run-step.ts'
import { median } from './statistics.ts'
import { describeStep, planSteps, type Step } from './steps.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const KINDS = ['data', 'evolve', 'finetune', 'alone', 'score', 'analyze', 'report'] as const

const { values: options } = parseArgs({
  options: {
    plan: { type: 'string', default: 'small' },
    folder: { type: 'string', default: join(ROOT, 'build', 'reproduce') },
    seeds: { type: 'string' },
    only: { type: 'string' },
    publish: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})

async function main(): Promise<void> {
  const plan = chosenPlan()
  // Hours of work, which must not be in the way of anything else on the machine.
  if (plan.name !== 'tiny') setPriority(constants.priority.PRIORITY_LOW)
  const only = options.only?.split(',')
  const unknown = only?.find((kind) => !(KINDS as readonly string[]).includes(kind))
  if (unknown !== undefined) throw new Error(`--only ${unknown}: there are ${KINDS.join(', ')}.`)
  const folder = resolve(options.folder)
  await mkdir(folder, { recursive: true })
  // A report can be had while another process is at work.
  const stopping = stopOnSignals()
  const release = only?.join() === 'report' ? null : await takeLock(folder, stopping)
  try {
    const journal = await openJournal(join(folder, 'results.jsonl'))
    const steps = await planSteps(plan)
    if (release !== null) await runSteps(plan, steps, only, folder, journal, stopping.signal)
    const input: ReportInput = { plan, journal: [...journal.rows.values()], findings: findings(plan, steps, journal.rows), steps }
    const text = await writeReport(folder, input)
    if (options.publish) await publish(ROOT, input)
    console.log(options.json ? JSON.stringify(input.findings, null, 2) : text)
  } finally {
    await release?.()
  }
}

/** Resolves to what gives the folder free again. */
async function takeLock(folder: string, stopping: AbortController): Promise<() => Promise<void>> {
  // A process that was paused, or whose machine slept, finds its lock expired: it takes it again, if nobody else has.
  const onCompromised = () => void take().catch(() => stopping.abort(new Error(`Another run took over ${folder} while this one was paused.`)))
  const take = () => lockfile.lock(folder, { stale: 30_000, onCompromised })
  await take().catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'ELOCKED' ? new Error(`Another run is at work in ${folder}. Wait for it, stop it, or name another --folder; after a kill it takes half a minute to be noticed.`) : error
  })
  return () => lockfile.unlock(folder)
}

function chosenPlan(): Plan {
  if (!(PLAN_NAMES as readonly string[]).includes(options.plan)) throw new Error(`--plan ${options.plan}: there are ${PLAN_NAMES.join(' and ')}.`)
  const plan = PLANS[options.plan as PlanName]
  if (options.seeds === undefined) return plan
  const seeds = options.seeds.split(',').map(Number)
  if (seeds.some((seed) => !Number.isInteger(seed) || seed < 0)) throw new Error(`--seeds ${options.seeds}: whole numbers are expected, with commas between them.`)
  return { ...plan, seeds }
}

async function runSteps(plan: Plan, steps: readonly Step[], only: readonly string[] | undefined, folder: string, journal: Journal, signal: AbortSignal): Promise<void> {
  const isDone = (step: Step) => journal.rows.has(step.key) && isOutputThere(folder, step)
  const log = createWriteStream(join(folder, 'log.txt'), { flags: 'a' })
  try {
    for (const [index, step] of steps.entries()) {
      if (isDone(step) || (only !== undefined && !only.includes(step.work.kind))) continue
      const missing = step.inputs.find((input) => !isDone(input))
      if (missing !== undefined) {
        say(`${step.id} is left out: it needs ${missing.id}, which is not done yet`)
        continue
      }
      say(`${index + 1} of ${steps.length}: ${describeStep(step.work)}${expectation(step, steps, journal, isDone)}`)
      const [load, started] = [loadavg()[0]!, performance.now()]
      log.write(`\n== ${step.id} ${new Date().toISOString()}\n`)
      const result = await runStep(step, { plan, folder, signal, onLog: (line) => void log.write(`${line}\n`), onProgress: showProgress })
      const seconds = (performance.now() - started) / 1000
      await journal.append({ key: step.key, id: step.id, kind: step.work.kind, at: new Date().toISOString(), seconds, load, result })
      await writeReport(folder, { plan, journal: [...journal.rows.values()], findings: findings(plan, steps, journal.rows), steps })
    }
  } finally {
    log.end()
  }
}

/** How long a step of its kind took, in the middle, and what is left by that measure. */
function expectation(step: Step, steps: readonly Step[], journal: Journal, isDone: (step: Step) => boolean): string {
  const durations = (kind: string) => [...journal.rows.values()].filter((row) => row.kind === kind).map(({ seconds }) => seconds)
  const own = durations(step.work.kind)
  if (own.length === 0) return ''
  const left = steps.filter((other) => !isDone(other)).map((other) => durations(other.work.kind)).map((known) => (known.length === 0 ? null : median(known)))
  const rest = left.includes(null) ? '' : `, ${duration(left.reduce((sum: number, seconds) => sum + seconds!, 0))} for all that is left`
  return ` (about ${duration(median(own))}${rest})`
}

function duration(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3_600).toFixed(1)} h`
}

function showProgress({ phase, done, total, unit }: PythonProgress): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K  ${phase}: ${done} of ${total} ${unit}`)
}

function say(text: string): void {
  process.stderr.write(`${process.stderr.isTTY ? '\r\x1b[K' : ''}${new Date().toTimeString().slice(0, 8)} ${text}\n`)
}

function stopOnSignals(): AbortController {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => controller.abort(new Error('Stopped. Run the same command again to go on.')))
  }
  return controller
}

try {
  await main()
} catch (error) {
  say(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
}
