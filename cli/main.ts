#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { addAccountCommands } from './commands/account.ts'
import { addAnalyze } from './commands/analyze.ts'
import { addDeprecate } from './commands/deprecate.ts'
import { addDistTag } from './commands/dist-tag.ts'
import { addEvaluate } from './commands/evaluate.ts'
import { addEvolve } from './commands/evolve.ts'
import { addFinetune } from './commands/finetune.ts'
import { addGet } from './commands/get.ts'
import { addInfo } from './commands/info.ts'
import { addInit } from './commands/init.ts'
import { addJobs } from './commands/jobs.ts'
import { addMatrix } from './commands/matrix.ts'
import { addMerge } from './commands/merge.ts'
import { addOrg } from './commands/org.ts'
import { addPublish } from './commands/publish.ts'
import { addResolve } from './commands/resolve.ts'
import { addSearch } from './commands/search.ts'
import { addStorage } from './commands/storage.ts'
import { addToken } from './commands/token.ts'
import { addVerify } from './commands/verify.ts'
import { addYank } from './commands/yank.ts'
import { EXIT, EXIT_HELP, explainError, type CliError } from './exit.ts'
import { printable } from './format.ts'
import { interruption, watchInterruption } from './interruption.ts'
import { VERSION } from './version.ts'

function createProgram(): Command {
  const program = new Command('portllm')
    .description('A registry for model patches: publish a LoRA patch once, get it merged into every later version of its model.')
    .version(VERSION)
    // So that `publish --version 1.0` is the model's version and not this program's.
    .enablePositionalOptions()
    .exitOverride()
    .showHelpAfterError('(--help tells more)')
    .addHelpText('after', `\nAnswers go to stdout, as JSON with --json; progress and notes go to stderr.\n\n${EXIT_HELP}`)
  addAccountCommands(program)
  for (const add of [addInit, addPublish, addResolve, addAnalyze, addMatrix, addGet, addMerge, addVerify, addFinetune, addEvolve, addEvaluate, addSearch, addInfo, addYank, addDeprecate, addDistTag, addJobs, addStorage, addToken, addOrg]) add(program)
  return program
}

function report(error: CliError, isJson: boolean): void {
  const { code, message, exit, details } = error
  process.stderr.write(`portllm: ${message.split('\n').map(printable).join('\n')}\n`)
  if (process.env.PORTLLM_DEBUG) process.stderr.write(`${(error.cause as Error | undefined)?.stack ?? error.stack}\n`)
  if (isJson) process.stdout.write(`${JSON.stringify({ error: { code, message, exit, details } }, null, 2)}\n`)
  process.exitCode = exit
}

async function main(argv: readonly string[]): Promise<void> {
  watchInterruption()
  // `portllm … | head` closes stdout early, which is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? EXIT.ok : EXIT.failure))
  try {
    await createProgram().parseAsync(argv)
  } catch (error) {
    if (error instanceof CommanderError) {
      // commander has printed its message already; asking for help or the version is no error.
      process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
    } else {
      report(explainError(interruption.signal.aborted ? interruption.signal.reason : error), argv.includes('--json'))
    }
  }
}

await main(process.argv)
