import { Command } from 'commander'
import { readConfig } from './config.ts'
import { endOnSignal } from './end-on-signal.ts'
import { openServerLog } from './observability/server-log.ts'
import { prepareProgram, runProgram } from './run-program.ts'
import { startDispatcher } from './start-dispatcher.ts'

const program = prepareProgram(new Command('dispatcher'))
  .description('Keeps the job queue of a registry in order, beside its database: for deployments whose API cannot, as on the edge. Any number may run.')
  .addHelpText('after', '\nSettings come from the environment (docs/operations.md): DATABASE_DIRECT_URL or else DATABASE_URL, PORTLLM_S3_…, PORTLLM_MIGRATE, PORTLLM_LOG_LEVEL.\n\nExample:\n  DATABASE_URL=postgres://… node api/dispatcher.ts')
  .action(async () => {
    const config = readConfig({}, process.env)
    const log = await openServerLog(config)
    const starting = startDispatcher(config, log)
    endOnSignal(starting, log)
    await starting
  })

await runProgram(program)
