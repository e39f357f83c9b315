import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** A registry as users run it: the real server in a process of its own. */
export interface Registry {
  readonly url: string
  /** The administrator's, from the first start. */
  readonly token: string
  readonly process: ChildProcess
  stop(): Promise<void>
}

/** Starts the registry on an empty data folder, or with the `token` of an earlier start, and waits until it tells its address and its first token. */
export function startRegistry(data: string, { port = '0', environment = {}, token = null }: { port?: string; environment?: Record<string, string>; token?: string | null } = {}): Promise<Registry> {
  const child = spawn('node', [`${ROOT}api/server.ts`, '--data', data, '--port', port, '--json'], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, PORTLLM_LOG_LEVEL: 'warn', ...environment } })
  const stop = () => new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once('exit', () => resolve())
    child.kill('SIGTERM')
  })
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the registry stopped with exit code ${code}`)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const ready = JSON.parse(line) as { url: string; bootstrapToken: string | null }
      const known = token ?? ready.bootstrapToken
      if (known === null) return void stop().then(() => reject(new Error(`${data} is not an empty data folder`)))
      resolve({ url: ready.url, token: known, process: child, stop })
    })
  })
}

export interface CommandResult { code: number | null; stdout: string; stderr: string }

/** Runs the real command line, with the registry's address and token where there is one. */
export async function runCommand(registry: Pick<Registry, 'url' | 'token'> | null, args: readonly string[], { configFolder, showProgress = false }: { configFolder: string; showProgress?: boolean }): Promise<CommandResult> {
  const env = { ...process.env, XDG_CONFIG_HOME: configFolder, ...(registry && { PORTLLM_REGISTRY: registry.url, PORTLLM_TOKEN: registry.token }) }
  const child = spawn('node', [`${ROOT}cli/main.ts`, ...args], { env, stdio: ['ignore', 'pipe', showProgress ? 'inherit' : 'pipe'] })
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
  const texts = [child.stdout, child.stderr].map(async (stream) => {
    let text = ''
    for await (const chunk of stream ?? []) text += chunk
    return text
  })
  const [stdout, stderr] = await Promise.all(texts)
  return { code: await closed, stdout: stdout!, stderr: stderr! }
}

/** The same with `--json`, for a command that must succeed. */
export async function portllm(registry: Pick<Registry, 'url' | 'token'> | null, args: readonly string[], options: { configFolder: string; showProgress?: boolean }): Promise<Record<string, any>> {
  const { code, stdout, stderr } = await runCommand(registry, [...args, '--json'], options)
  if (code !== 0) throw new Error(`portllm ${args.join(' ')} ended with exit code ${code}\n${stderr}${stdout}`)
  return JSON.parse(stdout)
}
