import './small-heap.ts'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Logger } from 'pino'
import { openLog, type Log } from './log.ts'
import { JOB_KINDS, type JobKind } from './protocol.ts'
import { isTransient, registryClient, RegistryError, type RegistryClient } from './registry-client.ts'
import { runAttempt, RunnerStopped } from './run-attempt.ts'

const HELP = `Usage: node gpu-runner/runner.ts [options]

Claims jobs from a PortLLM registry, works on them one after another, and reports back.

Options:
  --kinds LIST          kinds of jobs to take, separated by commas (default: ${JOB_KINDS.join(',')})
  --idle-seconds N      exit with 0 when there was no work for N seconds (default: wait for ever)
  --once                exit after one job
  --name NAME           name shown to the registry (default: host name and process id)
  --with-parent         exit when the process that started this one is gone
  --help                this text

Environment:
  PORTLLM_REGISTRY      address of the registry, such as http://127.0.0.1:8080
  PORTLLM_RUNNER_TOKEN  a token with the scope "runner"
  PORTLLM_CORE_PATH     scalar, avx2, avx512, avx512bf16, neon or cuda, instead of the best (docs/cuda.md)
  PORTLLM_SCRATCH       folder for what evaluate, finetune and evolve download and write (default: below the temporary folder)
  PORTLLM_DATA          folder of data that jobs may name as organization/name; jobs of that organization's members read it
  PORTLLM_TORCH         cpu or cuda: the PyTorch of that environment, instead of what suits this machine
  PORTLLM_PYTHON        the Python that these kinds make their environment with, at the first of their jobs

SIGTERM and SIGINT give the job back to the queue before the process ends. Exit codes: 0 no more work or stopped,
1 the registry refuses this runner, 2 wrong usage.
`

/** Longest wait of one claim; proxies cut idle connections after a minute. */
const LONG_POLL_SECONDS = 25
const PARENT_POLL_MILLISECONDS = 1000
const MIN_CLAIM_MILLISECONDS = 1000
const MAX_PAUSE_MILLISECONDS = 30_000

interface Settings {
  readonly registry: string
  readonly token: string
  readonly kinds: readonly JobKind[]
  readonly idleSeconds: number | null
  readonly once: boolean
  readonly name: string
  readonly withParent: boolean
}

class UsageError extends Error {}

function readSettings(args: string[], env: NodeJS.ProcessEnv): Settings | 'help' {
  const { values } = parseArgs({
    args,
    options: {
      kinds: { type: 'string', default: JOB_KINDS.join(',') },
      'idle-seconds': { type: 'string' },
      once: { type: 'boolean', default: false },
      name: { type: 'string', default: `${hostname()}-${process.pid}` },
      'with-parent': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  const kinds = values.kinds.split(',').map((kind) => kind.trim())
  const unknown = kinds.find((kind) => !(JOB_KINDS as readonly string[]).includes(kind))
  if (unknown !== undefined) throw new UsageError(`--kinds: "${unknown}" is not one of ${JOB_KINDS.join(', ')}`)
  const idleSeconds = values['idle-seconds'] === undefined ? null : Number(values['idle-seconds'])
  if (idleSeconds !== null && !(idleSeconds >= 0 && values['idle-seconds'] !== '')) throw new UsageError('--idle-seconds needs a number of seconds from 0')
  const registry = env.PORTLLM_REGISTRY ?? ''
  if (!/^https?:\/\//.test(registry) || !URL.canParse(registry)) throw new UsageError('PORTLLM_REGISTRY is not set to the address of a registry, such as http://127.0.0.1:8080')
  const token = env.PORTLLM_RUNNER_TOKEN ?? ''
  if (token === '') throw new UsageError('PORTLLM_RUNNER_TOKEN is not set: make a token with the scope "runner" in the registry')
  return { registry, token, kinds: kinds as JobKind[], idleSeconds, once: values.once, name: values.name, withParent: values['with-parent'] }
}

async function runUntilIdle({ kinds, idleSeconds, once, name }: Settings, { client, log, stop }: { client: RegistryClient; log: Logger; stop: AbortSignal }): Promise<void> {
  let idleSince = performance.now()
  let silences = 0
  while (!stop.aborted) {
    const asked = performance.now()
    const idleLeft = idleSeconds === null ? Infinity : idleSeconds - (asked - idleSince) / 1000
    const waitSeconds = Math.max(0, Math.min(LONG_POLL_SECONDS, Math.ceil(idleLeft)))
    try {
      const claim = await client.claim({ kinds, waitSeconds, runner: { name } }, stop)
      silences = 0
      if (claim !== null) {
        const jobLog = log.child({ job: claim.job.id, kind: claim.job.kind, attempt: claim.job.attempt })
        jobLog.info('job claimed')
        await runAttempt({ claim, client: client.attempt(claim), log: jobLog, stop })
        if (once) return
        idleSince = performance.now()
        continue
      }
    } catch (error) {
      if (stop.aborted) return
      if (!(error instanceof RegistryError) || !isTransient(error)) throw error
      silences++
      log.warn({ reason: error.message }, 'no answer to a claim')
    }
    if (idleSeconds !== null && performance.now() - idleSince >= idleSeconds * 1000) {
      log.info({ idleSeconds }, 'no work: exiting')
      return
    }
    // A registry that does not hold the request open must not be asked without end.
    const pause = silences > 0 ? Math.min(500 * 2 ** silences, MAX_PAUSE_MILLISECONDS) : asked + MIN_CLAIM_MILLISECONDS - performance.now()
    if (pause > 0) await sleep(pause, undefined, { signal: stop }).catch(() => undefined)
  }
}

function stopSignal(withParent: boolean, log: Log): AbortSignal {
  const controller = new AbortController()
  const stop = (why: string) => {
    if (controller.signal.aborted) process.exit(1)
    log.info({ why }, 'stopping')
    controller.abort(new RunnerStopped())
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  if (withParent) {
    const parent = process.ppid
    const poll = setInterval(() => {
      if (process.ppid === parent) return
      clearInterval(poll)
      stop('the parent process is gone')
    }, PARENT_POLL_MILLISECONDS)
    poll.unref()
  }
  return controller.signal
}

async function main(): Promise<number> {
  let settings: Settings | 'help'
  try {
    settings = readSettings(process.argv.slice(2), process.env)
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nSee --help.\n`)
    return 2
  }
  if (settings === 'help') {
    process.stdout.write(HELP)
    return 0
  }
  // What this process starts, Python above all, need not know it.
  delete process.env.PORTLLM_RUNNER_TOKEN
  const log = openLog(settings.name)
  const stop = stopSignal(settings.withParent, log)
  log.info({ registry: new URL(settings.registry).origin, kinds: settings.kinds }, 'runner started')
  try {
    await runUntilIdle(settings, { client: registryClient({ url: settings.registry, token: settings.token }), log, stop })
    return 0
  } catch (error) {
    log.error({ code: error instanceof RegistryError ? error.code : 'internal', err: error instanceof RegistryError ? undefined : error }, error instanceof RegistryError ? error.message : 'the runner met an error of its own')
    return 1
  }
}

process.exit(await main())
