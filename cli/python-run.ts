import { PythonFailure, type PythonProgress, type PythonWatch } from '../gpu-runner/python.ts'
import { CliError, EXIT, type ExitCode } from './exit.ts'
import { startProgress, type Progress } from './progress.ts'
import type { Session } from './session.ts'

const EXITS: Readonly<Record<string, ExitCode>> = { bad_task: EXIT.usage, bad_config: EXIT.usage, disk_full: EXIT.diskFull }

/** Runs Python for a command: its phases on stderr, a bar for those that count, its failures as the command's own. */
export async function withPython<T>(session: Session, run: (watch: PythonWatch) => Promise<T>): Promise<T> {
  const phases = new Phases(session)
  const isDebugging = Boolean(process.env.PORTLLM_DEBUG)
  try {
    return await run({
      signal: session.signal,
      onProgress: (progress) => phases.update(progress),
      onNote: (text) => phases.note(text),
      ...(isDebugging && { onLog: (line: string) => void process.stderr.write(`${line}\n`) }),
    })
  } catch (error) {
    throw error instanceof PythonFailure ? new CliError(EXITS[error.code] ?? EXIT.failure, error.code, error.message, { cause: error }) : error
  } finally {
    phases.stop()
  }
}

class Phases {
  readonly #session: Session
  #phase = ''
  #bar: Progress | undefined

  constructor(session: Session) {
    this.#session = session
  }

  update({ phase, done, total }: PythonProgress): void {
    const name = `${phase[0]!.toUpperCase()}${phase.slice(1)}`
    if (phase !== this.#phase) {
      this.stop()
      this.#phase = phase
      if (total > 1) this.#bar = startProgress(name, 'count', this.#session.quiet)
      else this.#session.note(`${name}.`)
    }
    this.#bar?.update(done, total)
  }

  note(text: string): void {
    this.stop()
    this.#phase = ''
    this.#session.warn(`Note: ${text}`)
  }

  stop(): void {
    this.#bar?.stop()
    this.#bar = undefined
  }
}
