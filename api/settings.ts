import { resolve } from 'node:path'
import { z } from 'zod'
import { S3_VARIABLES } from './s3-environment.ts'

/** How one setting is given, and what whoever runs the server should know of it. */
export interface Setting {
  readonly environment: string
  /** Of `portllm-server`, as commander writes it; it wins over the environment. */
  readonly option?: string
  /** `whole`: never shown. `password`: an URL, shown without its password. */
  readonly secret?: 'whole' | 'password'
  /** Of the text as it was given; absent and empty are the same. */
  readonly schema: z.ZodType<unknown, string | undefined>
  readonly meaning: string
  /** What holds where it is not given, in words. */
  readonly otherwise: string
}

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export const MIGRATE = ['auto', 'never', 'expanded'] as const

function wholeNumber(min: number, max: number) {
  return z.string().refine((text) => /^\d+$/.test(text) && Number(text) >= min && Number(text) <= max, { error: `must be a whole number from ${min} to ${max}` }).transform(Number)
}

function oneOf<const T extends readonly [string, ...string[]]>(words: T) {
  return z.enum(words, { error: `must be one of ${words.join(', ')}` })
}

const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).transform((text) => text.replace(/\/+$/, ''))
const postgresUrl = z.url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// or postgresql:// URL' })
const port = z
  .string()
  .refine((text) => /^\d+$/.test(text) && Number(text) <= 65535, { error: 'is not a port: give a number from 0 (any free one) to 65535' })
  .transform(Number)

/** Every setting of the server, the only place where they are named; docs/operations.md lists the same, which a test holds. */
export const SETTINGS = {
  data: {
    environment: 'PORTLLM_DATA_FOLDER', option: '--data <folder>',
    schema: z.string().default('portllm-data').transform((folder) => resolve(folder)),
    meaning: 'folder of the embedded database, blobs, lock and the runners\' log', otherwise: '`./portllm-data`',
  },
  host: { environment: 'PORTLLM_HOST', option: '--host <address>', schema: z.string().default('127.0.0.1'), meaning: 'address to listen on', otherwise: '`127.0.0.1`' },
  port: { environment: 'PORTLLM_PORT', option: '--port <number>', schema: port.default(8080), meaning: 'port to listen on; 0 takes any free one', otherwise: '`8080`' },
  publicUrl: {
    environment: 'PORTLLM_PUBLIC_URL',
    schema: httpUrl.optional(),
    meaning: 'how clients and runners reach the server; signed URLs begin with it', otherwise: 'the address it listens on',
  },
  startRunners: {
    environment: 'PORTLLM_RUNNERS', option: '--no-runners',
    schema: z.stringbool({ error: 'must be true or false' }).default(true),
    meaning: 'whether runners are started as child processes; otherwise others claim the jobs', otherwise: '`true`',
  },
  databaseUrl: { environment: 'DATABASE_URL', secret: 'password', schema: postgresUrl.optional(), meaning: 'a PostgreSQL server', otherwise: 'the embedded database' },
  directDatabaseUrl: {
    environment: 'DATABASE_DIRECT_URL', secret: 'password', schema: postgresUrl.optional(),
    meaning: 'the same database past any pooler: for migrations and the dispatcher, which need sessions; no statement is prepared through `DATABASE_URL` then', otherwise: '`DATABASE_URL`',
  },
  databaseConnections: { environment: 'PORTLLM_DATABASE_CONNECTIONS', schema: wholeNumber(1, 1000).default(10), meaning: 'connections to PostgreSQL of one server, beside 4 of the job queue', otherwise: '`10`' },
  migrate: {
    environment: 'PORTLLM_MIGRATE', schema: oneOf(MIGRATE).default('auto'),
    meaning: '`auto`: the server brings the database to its schema as it starts. `never`: it starts only on exactly its schema. `expanded`: also on a newer one, in the middle of a deploy', otherwise: '`auto`',
  },
  supervise: {
    environment: 'PORTLLM_SUPERVISE', schema: z.stringbool({ error: 'must be true or false' }).default(true),
    meaning: 'whether this server ends lost jobs and keeps the queue in order; otherwise a dispatcher must', otherwise: '`true`',
  },
  s3Bucket: { environment: 'PORTLLM_S3_BUCKET', schema: S3_VARIABLES.PORTLLM_S3_BUCKET, meaning: 'the bucket of an S3 for the blobs', otherwise: 'the data folder' },
  s3Endpoint: { environment: 'PORTLLM_S3_ENDPOINT', schema: S3_VARIABLES.PORTLLM_S3_ENDPOINT, meaning: 'address of the S3', otherwise: "AWS's own" },
  s3PublicEndpoint: { environment: 'PORTLLM_S3_PUBLIC_ENDPOINT', schema: S3_VARIABLES.PORTLLM_S3_PUBLIC_ENDPOINT, meaning: 'how clients and runners reach it; signed URLs begin with it', otherwise: '`PORTLLM_S3_ENDPOINT`' },
  s3Region: { environment: 'PORTLLM_S3_REGION', schema: S3_VARIABLES.PORTLLM_S3_REGION, meaning: 'its region; `auto` for R2', otherwise: '`us-east-1` at an endpoint; AWS needs it' },
  s3AccessKeyId: { environment: 'PORTLLM_S3_ACCESS_KEY_ID', schema: S3_VARIABLES.PORTLLM_S3_ACCESS_KEY_ID, meaning: 'who the server is to it', otherwise: "the machine's role at AWS" },
  s3SecretAccessKey: { environment: 'PORTLLM_S3_SECRET_ACCESS_KEY', secret: 'whole', schema: S3_VARIABLES.PORTLLM_S3_SECRET_ACCESS_KEY, meaning: 'the secret of that key', otherwise: "the machine's role at AWS" },
  s3PathStyle: {
    environment: 'PORTLLM_S3_PATH_STYLE', schema: S3_VARIABLES.PORTLLM_S3_PATH_STYLE,
    meaning: 'whether its URLs name the bucket in their path rather than in their host', otherwise: '`true` at an endpoint',
  },
  s3Checksums: {
    environment: 'PORTLLM_S3_CHECKSUMS', schema: S3_VARIABLES.PORTLLM_S3_CHECKSUMS,
    meaning: "whether it compares uploads with the checksum in their header (Versity's gateway), rather than with the hash that is signed (Ceph)", otherwise: '`true` at AWS and R2',
  },
  garbageGraceHours: {
    environment: 'PORTLLM_GARBAGE_GRACE_HOURS', schema: wholeNumber(1, 24 * 366).default(24),
    meaning: 'how long the daily garbage collection keeps what nothing needs any more: longer than a backup takes', otherwise: '`24`',
  },
  drainSeconds: { environment: 'PORTLLM_DRAIN_SECONDS', schema: wholeNumber(0, 600).default(0), meaning: 'between the signal to stop and the end of new connections, while it is not ready: for load balancers to notice', otherwise: '`0`' },
  graceSeconds: { environment: 'PORTLLM_GRACE_SECONDS', schema: wholeNumber(0, 86_400).default(25), meaning: 'after that, how long running requests and downloads may take before they are cut off', otherwise: '`25`' },
  metricsPort: { environment: 'PORTLLM_METRICS_PORT', schema: port.optional(), meaning: 'port of a listener of its own for `/metrics`; 0 takes any free one', otherwise: 'no metrics' },
  metricsHost: { environment: 'PORTLLM_METRICS_HOST', schema: z.string().default('127.0.0.1'), meaning: 'address of that listener', otherwise: '`127.0.0.1`' },
  logLevel: { environment: 'PORTLLM_LOG_LEVEL', schema: oneOf(LOG_LEVELS).default('info'), meaning: `\`${LOG_LEVELS.join('`, `')}\`; requests are logged at \`info\``, otherwise: '`info`' },
  tracesEndpoint: {
    environment: 'OTEL_EXPORTER_OTLP_ENDPOINT', schema: httpUrl.optional(),
    meaning: 'where OpenTelemetry traces go, by OTLP over HTTP; its exporter reads its other `OTEL_EXPORTER_OTLP_…` variables itself', otherwise: 'no traces',
  },
  tracesService: { environment: 'OTEL_SERVICE_NAME', schema: z.string().default('portllm'), meaning: 'what the traces call this server', otherwise: '`portllm`' },
  tracesRatio: {
    environment: 'OTEL_TRACES_SAMPLER_ARG', schema: z.string().refine((text) => text.trim() !== '' && Number(text) >= 0 && Number(text) <= 1, { error: 'must be a number from 0 to 1' }).transform(Number).default(1),
    meaning: 'the part of requests that is traced, where the client has not decided it', otherwise: '`1`',
  },
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof SETTINGS
