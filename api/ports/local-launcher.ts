import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { RunnerLauncher } from './runner-launcher.ts'

const RUNNER = fileURLToPath(new URL('../../gpu-runner/runner.ts', import.meta.url))
/** A runner without work ends itself after this long. */
const IDLE_SECONDS = 30
/** A runner that breaks at start would otherwise be started again without pause. */
const RESTART_MS = 2_000
const STOP_GRACE_MS = 5_000

/** One runner as a child process of the server, started when there is work. It gets the runner token and nothing else. */
export function createLocalLauncher({ registryUrl, token, logFolder }: { registryUrl: string; token: string; logFolder: string }): RunnerLauncher {
  let child: ChildProcess | null = null
  let notBefore = 0
  let stopped = false

  function start(): void {
    const log = createWriteStream(join(logFolder, 'runner.log'), { flags: 'a' })
    const { PATH, HOME, TMPDIR, CXX, PORTLLM_CORE_PATH, PORTLLM_CUDA_HELPER, CUDA_VISIBLE_DEVICES } = process.env
    const env = Object.fromEntries(Object.entries({ PATH, HOME, TMPDIR, CXX, PORTLLM_CORE_PATH, PORTLLM_CUDA_HELPER, CUDA_VISIBLE_DEVICES, PORTLLM_REGISTRY: registryUrl, PORTLLM_RUNNER_TOKEN: token }).filter(([, value]) => value !== undefined))
    // Its standard input is a pipe from us: it closes when this process dies, however it dies.
    const started = spawn(process.execPath, [RUNNER, '--idle-seconds', String(IDLE_SECONDS), '--with-parent'], { env, stdio: ['pipe', 'pipe', 'pipe'] })
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
