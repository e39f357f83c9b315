import { resolve } from 'node:path'
import { z } from 'zod'
import type { S3Settings } from './ports/s3-client.ts'
import { S3Environment } from './s3-environment.ts'

const Environment = z.object({
  DATABASE_URL: z
    .url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// or postgresql:// URL' })
    .optional(),
  PORTLLM_PUBLIC_URL: z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).optional(),
})

export interface ServerConfig {
  /** Absolute folder of database, blobs and lock. */
  readonly data: string
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  /** A PostgreSQL server; without it, PGlite in the data folder. */
  readonly databaseUrl: string | undefined
  /** The bucket of blobs; without it, the data folder. */
  readonly s3: S3Settings | undefined
  /** How clients reach this server, without a trailing slash; without it, host and port. */
  readonly publicUrl: string | undefined
  /** False where runners are started by somebody else. */
  readonly startRunners: boolean
}

export interface ServerOptions {
  data?: string | undefined
  host?: string | undefined
  port?: string | number | undefined
  startRunners?: boolean | undefined
}

export class ConfigError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ConfigError'
  }
}

/** Options and environment, read once. Throws ConfigError that names each wrong setting. */
export function readConfig(options: ServerOptions, environment: Readonly<Record<string, string | undefined>>): ServerConfig {
  const variables = withoutEmpty(environment)
  const [parsed, s3] = [Environment.safeParse(variables), S3Environment.safeParse(variables)]
  if (!parsed.success || !s3.success) {
    const issues = [...(parsed.error?.issues ?? []), ...(s3.error?.issues ?? [])]
    throw new ConfigError(issues.map((issue) => `The environment variable ${issue.path.join('.')} ${issue.message}.`).join('\n'))
  }
  const port = Number(options.port ?? 8080)
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new ConfigError(`--port ${options.port} is not a port: give a number from 0 (any free one) to 65535.`)
  return {
    data: resolve(options.data ?? 'portllm-data'),
    host: options.host ?? '127.0.0.1',
    port,
    databaseUrl: parsed.data.DATABASE_URL,
    s3: s3.data,
    publicUrl: parsed.data.PORTLLM_PUBLIC_URL?.replace(/\/+$/, ''),
    startRunners: options.startRunners ?? true,
  }
}

function withoutEmpty(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== ''))
}
