import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { ROOT } from './registry.ts'

export interface ProgramProcess {
  readonly child: ChildProcess
  /** What it has written to standard error, line by line. */
  readonly log: readonly string[]
  /** Waits for a line of the log that holds the text. */
  logged(text: string): Promise<string>
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  /** All of its standard output, when it has ended. */
  readonly output: Promise<string>
  /** SIGTERM, and the end. */
  stop(): Promise<void>
}

/** A program of the registry in a process of its own, with nothing of the environment but what is given. */
export function startProgram(file: string, args: readonly string[], environment: Record<string, string>, nodeOptions: readonly string[] = []): ProgramProcess {
  const child = spawn(process.execPath, [...nodeOptions, `${ROOT}${file}`, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment } })
  const log: string[] = []
  const lines = createInterface({ input: child.stderr! }).on('line', (line) => log.push(line))
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => child.once('close', (code, signal) => resolve({ code, signal })))
  let out = ''
  child.stdout!.on('data', (chunk: Buffer) => (out += chunk.toString()))
  return {
    child,
    log,
    ended,
    output: ended.then(() => out),
    async logged(text) {
      for (;;) {
        const found = log.find((line) => line.includes(text))
        if (found !== undefined) return found
        await Promise.race([once(lines, 'line'), ended.then(() => Promise.reject(new Error(`it ended before it logged ${text}:\n${log.join('\n')}`)))])
      }
    },
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await ended
    },
  }
}

export interface ServerProcess extends ProgramProcess {
  readonly url: string
  /** Of the administrator, at the first start only. */
  readonly bootstrapToken: string | null
}

/** The server, started and ready; without runners. */
export async function startServerProcess(data: string, environment: Record<string, string>): Promise<ServerProcess> {
  const program = startProgram('api/server.ts', ['--data', data, '--port', '0', '--no-runners', '--json'], environment)
  const line = once(createInterface({ input: program.child.stdout! }), 'line')
  const failed = program.ended.then(({ code }) => Promise.reject(new Error(`the server ended with exit code ${code}:\n${program.log.join('\n')}`)))
  failed.catch(() => {})
  const [text] = (await Promise.race([line, failed])) as [string]
  return { ...program, ...(JSON.parse(text) as { url: string; bootstrapToken: string | null }) }
}
