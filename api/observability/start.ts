import type { MiddlewareHandler } from 'hono'
import type { Sql } from 'postgres'
import type { AppEnv } from '../app.ts'
import type { ServerConfig } from '../config.ts'
import type { ConnectedDatabase } from '../connect-database.ts'
import type { BlobStore } from '../ports/blob-store.ts'
import type { Log } from '../ports/log.ts'
import type { TensorMerger } from '../ports/tensor-merger.ts'
import { logRequests, observeRequests, type RequestObserver } from './observe-requests.ts'

/** What looks on while the server works: its log, metrics and traces. What is not configured is not even loaded. */
export interface Observability {
  /** In their order, around everything else of the application. */
  readonly middleware: readonly MiddlewareHandler<AppEnv>[]
  readonly metricsUrl: string | null
  /** How PostgreSQL lists this server's connections. */
  readonly applicationName: string
  traceSql(sql: Sql): Sql
  traceBlobs<T extends BlobStore>(blobs: T): T
  countMerges(merger: TensorMerger): TensorMerger
  watchDatabase(database: ConnectedDatabase, config: ServerConfig): void
  close(): Promise<void>
}

export async function startObservability(config: ServerConfig, log: Log): Promise<Observability> {
  const applicationName = `portllm-${process.pid}-${crypto.randomUUID().slice(0, 8)}`
  const metrics = config.metricsPort === undefined ? null : (await import('./metrics.ts')).createMetrics(log)
  const listener = metrics === null ? null : await (await import('./serve-metrics.ts')).serveMetrics({ metrics, log, host: config.metricsHost, port: config.metricsPort! })
  const traces = config.tracesEndpoint === undefined ? null : (await import('./traces.ts')).startTraces({ endpoint: config.tracesEndpoint, serviceName: config.tracesService, ratio: config.tracesRatio, log })
  const observers: RequestObserver[] = [logRequests(log), ...(metrics === null ? [] : [metrics.observeRequest])]
  return {
    middleware: [observeRequests(observers), ...(traces === null ? [] : [traces.middleware])],
    metricsUrl: listener?.url ?? null,
    applicationName,
    traceSql: (sql) => traces?.traceSql(sql) ?? sql,
    traceBlobs: (blobs) => traces?.traceBlobs(blobs) ?? blobs,
    countMerges: (merger) => metrics?.countMerges(merger) ?? merger,
    watchDatabase({ db, engine }, { databaseConnections }) {
      metrics?.watchDatabase({ db, connections: engine === 'pglite' ? null : { applicationName, max: databaseConnections } })
    },
    async close() {
      await listener?.close(0)
      await traces?.close()
    },
  }
}
