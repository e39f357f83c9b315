import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { openPostgres } from '../../db/postgres.ts'
import { readConfig, secretsOf, showConfig, type ServerConfig, type ServerOptions } from '../config.ts'
import { assertSchema } from '../migrate-server.ts'
import { systemClock } from '../ports/clock.ts'
import { createS3BlobStore } from '../ports/s3-blob-store.ts'
import { createRedactor } from '../redaction.ts'

/** Exit code where the settings are right, but something that they name cannot be used. */
export const EXIT_UNREACHABLE = 3

interface Check { readonly part: string; readonly problem: string | null }

/**
 * Prints the configuration in effect, without secrets, and whether what it names can be used; nothing is started or
 * changed. Throws ConfigError with every wrong setting.
 */
export async function checkConfig(options: ServerOptions, environment: NodeJS.ProcessEnv, json: boolean): Promise<void> {
  const config = readConfig(options, environment)
  const redact = createRedactor(secretsOf(config))
  const checks = await Promise.all(checksOf(config).map(async ([part, check]): Promise<Check> => ({ part, problem: await check(config).then(() => null, (error: Error) => redact(reasonOf(error))) })))
  const isUsable = checks.every(({ problem }) => problem === null)
  const settings = showConfig(config, options, environment)
  if (json) {
    console.log(JSON.stringify({ settings, checks, isUsable }, null, 2))
  } else {
    const width = Math.max(...settings.map(({ environment: name }) => name.length))
    for (const { environment: name, value, from } of settings) console.log(`${name.padEnd(width)}  ${value === null ? '-' : String(value)}${from === 'default' ? '' : `  (${from})`}`)
    console.log()
    for (const { part, problem } of checks) console.log(`${part}: ${problem ?? 'ok'}`)
  }
  if (!isUsable) process.exitCode = EXIT_UNREACHABLE
}

function checksOf({ s3 }: ServerConfig): readonly (readonly [string, (config: ServerConfig) => Promise<void>])[] {
  return [
    ['database', checkDatabase],
    ['data folder', ({ data }) => checkFolder(data)],
    ...(s3 === undefined ? [] : [['bucket', () => createS3BlobStore({ settings: s3, clock: systemClock }).check()] as const]),
  ]
}

/** Also, with PORTLLM_MIGRATE other than auto, whether the server would take its schema. */
async function checkDatabase(config: ServerConfig): Promise<void> {
  for (const url of new Set([config.databaseUrl, config.directDatabaseUrl])) {
    if (url === undefined) continue
    const { db, close } = openPostgres(url, { max: 1 })
    try {
      await assertSchema(db, config.migrate, url)
    } finally {
      await close()
    }
  }
}

/** The folder, or the nearest one above it that is there, can be written to. */
async function checkFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' || dirname(folder) === folder) throw error
    return null
  })
  if (found === null) return checkFolder(dirname(folder))
  if (!found.isDirectory()) throw new Error(`${folder} is not a folder`)
  await access(folder, constants.W_OK)
}

function reasonOf(error: Error): string {
  const cause = (error.cause ?? error) as Error & { code?: string }
  return cause.message || cause.code || cause.name
}
