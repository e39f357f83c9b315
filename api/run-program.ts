import { CommanderError, type Command } from 'commander'
import { ConfigError } from './config.ts'
import { describeError } from './ports/log.ts'
import { TransferError } from './services/transfer/format.ts'
import { createRedactor } from './redaction.ts'
import { VERSION } from './version.ts'

/** What every program of the server does alike with its command line. */
export function prepareProgram(program: Command): Command {
  return program.version(VERSION).enablePositionalOptions().exitOverride().showHelpAfterError('(--help tells more)')
}

/** Runs a program to its exit code: 1 where it fails, 2 for wrong usage. An error's own properties may hold secrets, and are not printed. */
export async function runProgram(program: Command): Promise<void> {
  try {
    await program.parseAsync()
  } catch (error) {
    if (error instanceof CommanderError) {
      // commander has printed its message already; asking for help or the version is no error.
      process.exitCode = error.exitCode === 0 ? 0 : 2
    } else {
      const { message, stack } = describeError(error)
      console.error(error instanceof ConfigError || error instanceof TransferError ? message : createRedactor([])(String(stack ?? message)))
      process.exitCode = 1
    }
  }
}
