import { loadCore, type Core } from './core/core.ts'
import { diskFailure, JobFailure } from './job-failure.ts'
import { runAnalyze } from './jobs/analyze.ts'
import { runEvaluate } from './jobs/evaluate.ts'
import { runIngest } from './jobs/ingest.ts'
import type { JobContext } from './jobs/job-context.ts'
import { runMerge } from './jobs/merge.ts'
import { runEvolve, runFinetune } from './jobs/train.ts'
import type { Log } from './log.ts'
import { jobSpec, PROGRESS_UNITS, RESEARCH_KINDS, type Claim, type JobResult, type Progress } from './protocol.ts'
import { RegistryError, StaleAttemptError, type AttemptClient } from './registry-client.ts'
import { openScratch, type Scratch } from './scratch.ts'

/** People watch the progress that a heartbeat carries. */
const MAX_HEARTBEAT_MILLISECONDS = 3000
/** The registry takes no longer message. */
const MAX_MESSAGE_LENGTH = 4000
/** A runner that is told to stop has this long to give its job back. */
const STOP_MILLISECONDS = 3000

/** Reason of the abort when the runner is told to stop. */
export class RunnerStopped extends JobFailure {
  constructor() {
    super('runner_stopped', 'The runner was stopped.', true)
  }
}

/**
 * Works on one attempt and reports how it ended. A lost attempt ends quietly; so does one whose report cannot be
 * delivered, since its lease then ends by itself. `stop` ends the attempt as retryable.
 */
export async function runAttempt({ claim, client, log, stop }: { claim: Claim; client: AttemptClient; log: Log; stop: AbortSignal }): Promise<void> {
  const started = performance.now()
  const lost = new AbortController()
  const ended = new AbortController()
  const signal = AbortSignal.any([stop, lost.signal])
  let progress: Progress | null = null
  const heart = beat({ claim, client, log, lost, ended: ended.signal, progress: () => progress })
  let scratch: Scratch | null = null
  let goesOn = false
  try {
    if (isResearch(claim)) scratch = await openScratch(claim.job.id, signal)
    const result = await work(claim, { client, log, scratch, signal, report: (now) => void (progress = now) })
    await client.complete(result)
    log.info({ seconds: (performance.now() - started) / 1000, rejected: 'rejection' in result }, 'job completed')
  } catch (error) {
    goesOn = await reportFailure(error, { client, log, signal })
  } finally {
    ended.abort()
    await heart
    await scratch?.close(goesOn)
  }
}

function isResearch({ job }: Claim): boolean {
  return (RESEARCH_KINDS as readonly string[]).includes(job.kind)
}

interface Work extends Omit<JobContext, 'core'> {
  readonly client: AttemptClient
  readonly log: Log
  /** Null for what needs no disk. */
  readonly scratch: Scratch | null
}

async function work(claim: Claim, { client, log, scratch, signal, report }: Work): Promise<JobResult> {
  const spec = jobSpec.safeParse(claim.spec)
  if (!spec.success) throw new JobFailure('invalid_spec', 'This runner does not understand the job: runner and registry may be of different versions.', true)
  const core = () => openCore(log).then((opened) => ({ core: opened, signal, report }))
  const research = () => ({
    folder: scratch!.folder, signal,
    report: (now: Progress) => report({ ...now, unit: (PROGRESS_UNITS as readonly string[]).includes(now.unit) ? now.unit : 'steps' }),
    outputs: (files: Parameters<AttemptClient['outputs']>[0]) => client.outputs(files, signal),
    log: (line: string) => log.info({ from: 'python' }, line),
  })
  switch (spec.data.kind) {
    case 'ingest': return runIngest(spec.data, await core())
    case 'merge': return runMerge(spec.data, await core())
    case 'analyze': return runAnalyze(spec.data, await core())
    case 'evaluate': return runEvaluate(spec.data, research())
    case 'finetune': return runFinetune(spec.data, research())
    case 'evolve': return runEvolve(spec.data, research())
  }
}

let announcedGpu: string | null = null

async function openCore(log: Log): Promise<Core> {
  try {
    const core = await loadCore({ gpu: true })
    if (core.gpu !== announcedGpu) log.info({ path: core.path }, core.gpu ?? '')
    announcedGpu = core.gpu
    return core
  } catch (error) {
    throw new JobFailure('core_unavailable', `The merge core of this runner does not load: ${error instanceof Error ? error.message : String(error)}`, true)
  }
}

/** Whether another attempt may go on with what this one has left. */
async function reportFailure(error: unknown, { client, log, signal }: { client: AttemptClient; log: Log; signal: AbortSignal }): Promise<boolean> {
  // After an abort the first error to surface is often only its echo.
  const cause: unknown = signal.aborted ? signal.reason : error
  if (cause instanceof StaleAttemptError) {
    log.warn('the attempt was lost to another one')
    return true
  }
  const failure = toFailure(cause)
  log.error({ code: failure.code, retryable: failure.retryable, err: cause instanceof JobFailure ? undefined : cause }, failure.message)
  try {
    await client.fail({ code: failure.code, message: failure.message.slice(0, MAX_MESSAGE_LENGTH), retryable: failure.retryable }, cause instanceof RunnerStopped ? AbortSignal.timeout(STOP_MILLISECONDS) : undefined)
  } catch (unreported) {
    log.warn({ reason: String(unreported) }, 'the failure could not be reported: the lease will run out')
    return true
  }
  return failure.retryable
}

function toFailure(error: unknown): JobFailure {
  if (error instanceof JobFailure) return error
  if (error instanceof RegistryError) return new JobFailure('result_refused', `The registry did not take the result: ${error.message}`, error.status === 0 || error.status >= 500)
  return diskFailure(error) ?? new JobFailure('internal', 'The runner met an error of its own. Its log has the details.', true)
}

interface Heart {
  readonly claim: Claim
  readonly client: AttemptClient
  readonly log: Log
  readonly lost: AbortController
  readonly ended: AbortSignal
  progress(): Progress | null
}

/** Keeps the lease until the work has ended; aborts the work where the lease is gone. */
async function beat({ claim, client, log, lost, ended, progress }: Heart): Promise<void> {
  while (await pause(Math.min((claim.leaseSeconds * 1000) / 3, MAX_HEARTBEAT_MILLISECONDS), ended)) {
    try {
      const { cancel } = await client.heartbeat(progress(), ended)
      if (cancel) return lost.abort(new JobFailure('cancelled', 'The job was cancelled.', false))
    } catch (error) {
      if (ended.aborted) return
      // Silence may pass; a refusal means that the work is for nothing.
      if (error instanceof RegistryError && (error.status === 0 || error.status >= 500)) log.warn({ reason: error.message }, 'a heartbeat did not arrive')
      else return lost.abort(error instanceof RegistryError ? new StaleAttemptError() : error)
    }
  }
}

/** False where the signal came first. */
function pause(milliseconds: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false)
    const stop = () => {
      clearTimeout(timer)
      resolve(false)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      resolve(true)
    }, milliseconds)
    signal.addEventListener('abort', stop, { once: true })
  })
}
