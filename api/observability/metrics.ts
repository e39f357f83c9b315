import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics, type LabelValues } from 'prom-client'
import type { Database } from '../../db/database.ts'
import type { Log } from '../ports/log.ts'
import type { TensorMerger } from '../ports/tensor-merger.ts'
import { countConnections, countOpenJobs } from './database-figures.ts'
import type { RequestObserver } from './observe-requests.ts'

/** Seconds: from an answer out of memory to the download of a whole model. */
const DURATION_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800]

export interface Metrics {
  readonly observeRequest: RequestObserver
  /** The same merger; what it is asked for is counted. */
  countMerges(merger: TensorMerger): TensorMerger
  /** Figures that are asked of the database at each scrape. `connections` is null for the embedded one, which has none. */
  watchDatabase(database: { db: Database; connections: { applicationName: string; max: number } | null }): void
  /** In Prometheus' text format. */
  text(): Promise<string>
  readonly contentType: string
}

/** The server's metrics. Labels hold route patterns, methods, statuses, kinds and states only: the code bounds their number. */
export function createMetrics(log: Log): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const duration = new Histogram({ name: 'portllm_http_request_duration_seconds', help: 'From the arrival of a request to the last byte of its answer.', labelNames: ['method', 'route', 'status'], buckets: DURATION_BUCKETS, registers })
  const sent = new Counter({ name: 'portllm_http_sent_bytes_total', help: 'Bytes of answers, heads included.', labelNames: ['route'], registers })
  const cut = new Counter({ name: 'portllm_http_cut_answers_total', help: 'Answers that did not go out whole: the client left, or it failed midway.', labelNames: ['route'], registers })
  const merges = new Counter({ name: 'portllm_merge_on_read_ranges_total', help: 'Ranges of changed tensors that were asked of the merge core.', labelNames: ['outcome'], registers })
  const mergedBytes = new Counter({ name: 'portllm_merge_on_read_bytes_total', help: 'Bytes of those ranges.', registers })

  /** What the database does not tell is left out: the other metrics are then needed most. */
  function askedGauge<T extends string>({ name, help, labelNames, ask }: { name: string; help: string; labelNames: T[]; ask: () => Promise<(readonly [LabelValues<T>, number])[]> }): void {
    new Gauge({
      name, help, labelNames, registers,
      async collect() {
        this.reset()
        try {
          for (const [labels, value] of await ask()) this.set(labels, value)
        } catch (err) {
          log.warn({ err, metric: name }, 'A metric could not be asked of the database')
        }
      },
    })
  }

  return {
    observeRequest({ method, route, status, seconds, bytes, isCut }) {
      duration.observe({ method, route, status }, seconds)
      sent.inc({ route }, bytes)
      if (isCut) cut.inc({ route })
    },
    countMerges: (merger) => ({
      ...merger,
      async open(asked) {
        const stream = await merger.open(asked).catch((error: unknown) => {
          merges.inc({ outcome: 'failed' })
          throw error
        })
        merges.inc({ outcome: 'opened' })
        mergedBytes.inc(asked.range.length)
        return stream
      },
    }),
    watchDatabase({ db, connections }) {
      const openJobs = shareRunning(() => countOpenJobs(db))
      askedGauge({ name: 'portllm_jobs', help: 'Open jobs.', labelNames: ['kind', 'state'], ask: async () => (await openJobs()).map(({ kind, state, count }) => [{ kind, state }, count] as const) })
      askedGauge({ name: 'portllm_oldest_job_seconds', help: 'Since the oldest of the open jobs was asked for.', labelNames: ['kind', 'state'], ask: async () => (await openJobs()).map(({ kind, state, oldestSeconds }) => [{ kind, state }, oldestSeconds] as const) })
      if (connections === null) return
      new Gauge({ name: 'portllm_database_connections_max', help: 'The most connections that requests take together.', registers }).set(connections.max)
      askedGauge({ name: 'portllm_database_connections', help: 'Connections of requests, as PostgreSQL counts them.', labelNames: ['state'], ask: async () => (await countConnections(db, connections.applicationName)).map(({ state, count }) => [{ state }, count] as const) })
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  }
}

/** Whoever asks while an answer is under way gets that one. */
function shareRunning<T>(work: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined
  return () => (running ??= work().finally(() => (running = undefined)))
}
