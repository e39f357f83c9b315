import { Command } from 'commander'
import { createRegistry, type Registry } from './client.ts'
import { readConnection } from './config.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { interruption } from './interruption.ts'

export interface CommonOptions {
  json?: boolean
  quiet?: boolean
  registry?: string
}

/** What a command has to say: `json` with --json, else `text`. */
export interface Answer {
  json: unknown
  text: string
  exit?: ExitCode
}

/** What a command works with, beside its own arguments and options. */
export interface Session {
  /** No progress and no notes. */
  readonly quiet: boolean
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal
  /** A line on stderr. */
  note(text: string): void
  /** A line on stderr even when quiet. */
  warn(text: string): void
  connect(): Promise<Registry>
}

/** A new subcommand of `parent` with the options that every command has. `signature`: name and arguments. */
export function addCommand(parent: Command, signature: string, summary: string): Command {
  return parent
    .command(signature)
    .summary(summary)
    .description(summary)
    .option('--json', 'print the answer as JSON on stdout')
    .option('-q, --quiet', 'no progress and no notes on stderr')
    .option('--registry <url>', 'address of the registry (default: PORTLLM_REGISTRY, then the last login)')
}

/** Makes `handler` the command's action; its answer goes to stdout and its exit code to the process. */
export function answerWith<A extends unknown[], O>(command: Command, handler: (session: Session, options: O & CommonOptions, ...args: A) => Promise<Answer>): Command {
  return command.action(async (...given: unknown[]) => {
    // commander passes the arguments, then the options, then the command.
    const args = given.slice(0, -2) as A
    const options = given.at(-2) as O & CommonOptions
    const answer = await handler(newSession(options), options, ...args)
    await writeOut(options.json ? `${JSON.stringify(answer.json, null, 2)}\n` : answer.text === '' ? '' : `${answer.text}\n`)
    process.exitCode = answer.exit ?? EXIT.ok
  })
}

function newSession(options: CommonOptions): Session {
  const quiet = options.quiet ?? false
  const warn = (text: string) => void process.stderr.write(`${text}\n`)
  return {
    quiet,
    signal: interruption.signal,
    note: quiet ? () => {} : warn,
    warn,
    connect: async () => createRegistry(await readConnection(options.registry), interruption.signal),
  }
}

function writeOut(text: string): Promise<void> {
  return new Promise((resolve, reject) => process.stdout.write(text, (error) => (error ? reject(error) : resolve())))
}
