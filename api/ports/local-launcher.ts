import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { JobKind } from './job-queue.ts'
import type { RunnerLauncher } from './runner-launcher.ts'

const RUNNER = fileURLToPath(new URL('../../gpu-runner/runner.ts', import.meta.url))
/** A runner without work ends itself after this long. */
const IDLE_SECONDS = 30
/** A runner that breaks at start would otherwise be started again without pause. */
const RESTART_MS = 2_000
const STOP_GRACE_MS = 5_000

/** Two runners, so that no merge waits for hours of training. */
const GROUPS: readonly (readonly JobKind[])[] = [['ingest', 'merge', 'analyze'], ['evaluate', 'finetune', 'evolve']]

/** What a runner may know of the server's environment: nothing that the registry's own secrets could be in. */
const PASSED_ON = [
  'PATH', 'HOME', 'TMPDIR', 'LANG', 'CXX', 'PORTLLM_CORE_PATH', 'PORTLLM_CUDA_HELPER', 'CUDA_VISIBLE_DEVICES', 'PORTLLM_DATA', 'PORTLLM_SCRATCH', 'PORTLLM_PYTHON',
  'HF_HOME', 'HF_ENDPOINT', 'HF_TOKEN', 'HF_HUB_OFFLINE', 'PIP_INDEX_URL', 'PIP_CONFIG_FILE', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE',
]

/** Runners as child processes of the server, started when there is work. They get the runner token and nothing else of it. */
export function createLocalLauncher({ registryUrl, token, logFolder }: { registryUrl: string; token: string; logFolder: string }): RunnerLauncher {
  const passedOn = Object.fromEntries(PASSED_ON.map((name) => [name, process.env[name]]).filter(([, value]) => value !== undefined))
  const env = { PORTLLM_SCRATCH: join(logFolder, 'scratch'), ...passedOn, PORTLLM_REGISTRY: registryUrl, PORTLLM_RUNNER_TOKEN: token }
  const runners = GROUPS.map((kinds) => ({ kinds, ...createRunner(kinds, env, join(logFolder, 'runner.log')) }))
  return {
    wake(wanted) {
      for (const { kinds, wake } of runners) if (wanted.some((kind) => kinds.includes(kind))) wake()
    },
    async stop() {
      await Promise.all(runners.map((runner) => runner.stop()))
    },
  }
}

/** At most one process at a time. */
function createRunner(kinds: readonly JobKind[], env: NodeJS.ProcessEnv, logFile: string): { wake(): void; stop(): Promise<void> } {
  let child: ChildProcess | null = null
  let notBefore = 0
  let stopped = false

  function start(): void {
    const log = createWriteStream(logFile, { flags: 'a' })
    // Its standard input is a pipe from us: it closes when this process dies, however it dies.
    const started = spawn(process.execPath, [RUNNER, '--kinds', kinds.join(','), '--idle-seconds', String(IDLE_SECONDS), '--with-parent'], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    started.stdout.pipe(log, { end: false })
    started.stderr.pipe(log, { end: false })
    started.on('error', (error) => log.write(`${error.message}\n`))
    started.on('close', (code) => {
      log.end()
      child = null
      if (code !== 0) notBefore = Date.now() + RESTART_MS
    })
    child = started
  }

  return {
    wake() {
      if (!stopped && child === null && Date.now() >= notBefore) start()
    },
    async stop() {
      stopped = true
      const running = child
      if (running === null) return
      const closed = once(running, 'close')
      running.kill('SIGTERM')
      const cut = setTimeout(() => running.kill('SIGKILL'), STOP_GRACE_MS)
      await closed
      clearTimeout(cut)
    },
  }
}
