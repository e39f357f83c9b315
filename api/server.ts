#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'
import { tameAllocator } from '../gpu-runner/allocator.ts'

// Loading the packages makes much garbage; by default V8 lets it grow to 300 MB before it looks.
setFlagsFromString('--semi-space-growth-factor=1')
tameAllocator()
const { Command } = await import('commander')
const { addMigrate } = await import('./commands/migrate.ts')
const { addExport } = await import('./commands/export.ts')
const { addGc } = await import('./commands/gc.ts')
const { addImport } = await import('./commands/import.ts')
const { addScrub } = await import('./commands/scrub.ts')
const { addRotateKeys } = await import('./commands/rotate-keys.ts')
const { addServe } = await import('./commands/serve.ts')
const { prepareProgram, runProgram } = await import('./run-program.ts')

const HELP = `
Every setting can be given in the environment (docs/operations.md lists them); an option wins over it.

Examples:
  portllm-server --data /srv/portllm                          everything in one process and one folder
  DATABASE_URL=postgres://… portllm-server --no-runners       on a PostgreSQL server, with runners elsewhere
  portllm-server --check-config                               what it would run by, and whether that works
  portllm-server migrate --check                              what a deploy would change in the database
  portllm-server gc --dry-run                                 what nothing needs any more
  portllm-server scrub                                        whether every stored byte is still what it was
  portllm-server export ./registry                            the whole registry, for "import" or to keep

Exit codes:
  0  done
  1  a setting is wrong, or it failed (the message says which, and why)
  2  wrong usage: an option or a command that is not there
  3  --check-config: the settings are right, but something that they name cannot be used
  4  migrate --check: something would be done
  5  scrub: a blob is damaged`

const program = prepareProgram(new Command('portllm-server')).description('The PortLLM registry.').addHelpText('after', HELP)
addServe(program)
for (const add of [addMigrate, addGc, addScrub, addExport, addImport, addRotateKeys]) add(program)
await runProgram(program)
