import type { Command } from 'commander'
import { ConfigError, readConfig, secretsOf } from '../config.ts'
import { migrateServer, planMigration, type MigrationReport } from '../migrate-server.ts'
import { createRedactor } from '../redaction.ts'

/** Exit code of `migrate --check` where something would be done. */
export const EXIT_PENDING = 4

export function addMigrate(program: Command): void {
  program
    .command('migrate')
    .description('brings the PostgreSQL of DATABASE_DIRECT_URL, or else DATABASE_URL, to the schema of this version; any number may do so at once')
    .option('--check', `change nothing: say what would be done (exit code ${EXIT_PENDING} if anything)`)
    .option('--json', 'answer with one line of JSON')
    .action(async ({ check, json }: { check?: true; json?: true }) => {
      const config = readConfig({}, process.env)
      const url = config.directDatabaseUrl ?? config.databaseUrl
      if (url === undefined) throw new ConfigError('There is no server to migrate: DATABASE_URL is not set. The embedded database is migrated by the server as it starts.')
      const report = await (check ? planMigration : migrateServer)(url).catch((error: Error) => {
        throw error instanceof ConfigError ? error : new ConfigError(createRedactor(secretsOf(config))(`The database cannot be migrated: ${messageOf(error)}`))
      })
      console.log(json ? JSON.stringify(report) : describe(report, check === true))
      if (check && isPending(report)) process.exitCode = EXIT_PENDING
    })
}

function isPending({ migrations, queue }: MigrationReport): boolean {
  return migrations.length > 0 || queue.from !== queue.to
}

function describe(report: MigrationReport, isPlan: boolean): string {
  if (!isPending(report)) return 'The database has the schema of this version; there is nothing to do.'
  const { migrations, queue } = report
  return [
    ...migrations.map((name) => `${isPlan ? 'would apply' : 'applied'} ${name}`),
    ...(queue.from === queue.to ? [] : [`${isPlan ? 'would bring' : 'brought'} the job queue from version ${queue.from} to ${queue.to}`]),
  ].join('\n')
}

function messageOf(error: Error): string {
  const { message, code } = (error.cause ?? error) as Error & { code?: string }
  return message || code || error.name
}
