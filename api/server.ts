#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'
import { tameAllocator } from '../gpu-runner/allocator.ts'

// Loading the packages makes much garbage; by default V8 lets it grow to 300 MB before it looks.
setFlagsFromString('--semi-space-growth-factor=1')
tameAllocator()
const { Command, CommanderError } = await import('commander')
const { ConfigError } = await import('./config.ts')
const { addMigrate } = await import('./commands/migrate.ts')
const { addServe } = await import('./commands/serve.ts')
const { describeError } = await import('./ports/log.ts')
const { createRedactor } = await import('./redaction.ts')
const { VERSION } = await import('./version.ts')

const HELP = `
Every setting can be given in the environment (docs/operations.md lists them); an option wins over it.

Examples:
  portllm-server --data /srv/portllm                          everything in one process and one folder
  DATABASE_URL=postgres://… portllm-server --no-runners       on a PostgreSQL server, with runners elsewhere
  portllm-server --check-config                               what it would run by, and whether that works
  portllm-server migrate --check                              what a deploy would change in the database

Exit codes:
  0  done
  1  a setting is wrong, or it failed (the message says which, and why)
  2  wrong usage: an option or a command that is not there
  3  --check-config: the settings are right, but something that they name cannot be used
  4  migrate --check: something would be done`

const program = new Command('portllm-server')
  .description('The PortLLM registry.')
  .version(VERSION)
  .enablePositionalOptions()
  .exitOverride()
  .showHelpAfterError('(--help tells more)')
  .addHelpText('after', HELP)
addServe(program)
addMigrate(program)

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // commander has printed its message already; asking for help or the version is no error.
    process.exitCode = error.exitCode === 0 ? 0 : 2
  } else {
    // An error's own properties may hold secrets, such as the URL that could not be read: they are not printed.
    const { message, stack } = describeError(error)
    console.error(error instanceof ConfigError ? message : createRedactor([])(String(stack ?? message)))
    process.exitCode = 1
  }
}
