import { join } from 'node:path'
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from 'miniflare'
import { unstable_readConfig as readConfig } from 'wrangler'
import type { S3Settings } from '../../api/ports/s3-client.ts'
import { EDGE_CONFIG } from './edge-bundle.ts'
import { ROOT } from './registry.ts'

export interface RunningEdge {
  readonly url: string
  /** What a cron trigger does. */
  scheduled(): Promise<void>
  stop(): Promise<void>
}

export interface EdgeServices {
  readonly databaseUrl: string
  readonly cachedDatabaseUrl: string
  readonly s3: S3Settings
  readonly port: number
  /** Hears each line of the Worker's log. */
  readonly onLog?: (line: string) => void
  /** In place of the limit of infra/wrangler.jsonc. */
  readonly requestsPerMinute?: number
  /** Vars in place of its own, or none. */
  readonly vars?: Readonly<Record<string, string | undefined>>
}

/** Where the bundle of the development environment is made before it is started. */
export const DEV_BUNDLE = join(ROOT, 'build/edge')

type RateLimit = { name: string; namespace_id: string; simple: { limit: number; period: 10 | 60 } }

/** The Worker as it would be deployed (`buildEdge`), in workerd, with the development settings of infra/wrangler.jsonc and these services. */
export async function startEdge({ databaseUrl, cachedDatabaseUrl, s3, port, onLog, requestsPerMinute, vars }: EdgeServices): Promise<RunningEdge> {
  const config = readConfig({ config: EDGE_CONFIG, env: 'dev' })
  const url = `http://127.0.0.1:${port}`
  const bindings = {
    ...config.vars,
    PORTLLM_PUBLIC_URL: url,
    PORTLLM_S3_BUCKET: s3.bucket,
    PORTLLM_S3_ENDPOINT: s3.endpoint,
    PORTLLM_S3_REGION: s3.region,
    PORTLLM_S3_ACCESS_KEY_ID: s3.accessKeyId,
    PORTLLM_S3_SECRET_ACCESS_KEY: s3.secretAccessKey,
    ...vars,
  }
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      name: config.name!,
      host: '127.0.0.1',
      cf: false,
      log: new Log(LogLevel.ERROR),
      handleStructuredLogs: ({ message }) => onLog?.(message),
      compatibilityDate: config.compatibility_date!,
      compatibilityFlags: config.compatibility_flags,
      modules: [{ type: 'ESModule', path: join(DEV_BUNDLE, 'worker.js') }],
      bindings: Object.fromEntries(Object.entries(bindings).filter(([, value]) => value !== undefined)) as Record<string, string>,
      hyperdrives: { DATABASE: databaseUrl, DATABASE_CACHED: cachedDatabaseUrl },
      ratelimits: Object.fromEntries((config.ratelimits as RateLimit[]).map(({ name, namespace_id, simple }) => [name, { namespace_id, simple: { ...simple, limit: requestsPerMinute ?? simple.limit } }])),
      // Past Miniflare's own worker, which would compress what it passes on.
      unsafeDirectSockets: [{ host: '127.0.0.1', port }],
    }),
  )
  await miniflare.ready
  return {
    url,
    async scheduled() {
      const { outcome } = await (await miniflare.getWorker() as unknown as { scheduled(options: object): Promise<{ outcome: string }> }).scheduled({})
      if (outcome !== 'ok') throw new Error(`the cron trigger ended with ${outcome}`)
    },
    stop: () => miniflare.dispose(),
  }
}
