import { context, diag, DiagLogLevel, propagation, SpanKind, SpanStatusCode, trace, type Attributes, type Span } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, ParentBasedSampler, TraceIdRatioBasedSampler, TracerProvider } from '@opentelemetry/sdk-trace'
import type { MiddlewareHandler } from 'hono'
import type { Sql } from 'postgres'
import type { AppEnv } from '../app.ts'
import type { BlobStore } from '../ports/blob-store.ts'
import type { Log } from '../ports/log.ts'
import { VERSION } from '../version.ts'
import { routeOf } from './observe-requests.ts'
import { createSqlTracer } from './trace-sql.ts'

export interface Traces {
  readonly middleware: MiddlewareHandler<AppEnv>
  traceSql(sql: Sql): Sql
  traceBlobs<T extends BlobStore>(blobs: T): T
  /** Sends what is left. */
  close(): Promise<void>
}

/** Work below a request: a span of its own, which tells that it failed, and never with what words. */
export type RunTraced = <T>(name: string, attributes: Attributes, work: () => Promise<T>) => Promise<T>

/** The operations of a blob store that take time. */
const BLOB_OPERATIONS = ['read', 'open', 'size', 'putBlob', 'signParts', 'stagedParts', 'assemble', 'promote', 'discard', 'remove'] as const

/**
 * Traces to an OTLP collector. Spans hold paths and routes, no query of an address and no message of an error: a
 * signature or a key may be in them.
 */
export function startTraces({ endpoint, serviceName, ratio, log }: { endpoint: string; serviceName: string; ratio: number; log: Log }): Traces {
  const warn = (message: string) => log.warn({ from: 'OpenTelemetry' }, message)
  diag.setLogger({ error: warn, warn, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN)
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': serviceName, 'service.version': VERSION }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: `${endpoint}/v1/traces` }) })],
  })
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  const tracer = provider.getTracer('portllm', VERSION)

  const runTraced: RunTraced = (name, attributes, work) => {
    // What happens outside of any request, such as the watch over jobs, would be noise.
    if (trace.getActiveSpan() === undefined) return work()
    return tracer.startActiveSpan(name, { kind: SpanKind.CLIENT, attributes }, async (span) => {
      try {
        return await work()
      } catch (error) {
        markFailed(span, error)
        throw error
      } finally {
        span.end()
      }
    })
  }

  return {
    middleware: async (c, next) => {
      const parent = propagation.extract(context.active(), c.req.header())
      const attributes = { 'http.request.method': c.req.method, 'url.path': c.req.path }
      await tracer.startActiveSpan(c.req.method, { kind: SpanKind.SERVER, attributes }, parent, async (span) => {
        try {
          await next()
        } finally {
          const route = routeOf(c)
          span.updateName(`${c.req.method} ${route}`)
          span.setAttributes({ 'http.route': route, 'http.response.status_code': c.res.status, 'portllm.request_id': c.var.requestId })
          if (c.res.status >= 500) markFailed(span, c.error)
          span.end()
        }
      })
    },
    traceSql: createSqlTracer(runTraced),
    traceBlobs(blobs) {
      const traced = BLOB_OPERATIONS.map((name) => [name, (...args: unknown[]) => runTraced(`blobs.${name}`, {}, () => (blobs[name] as (...args: unknown[]) => Promise<unknown>)(...args))])
      return { ...blobs, ...Object.fromEntries(traced) }
    },
    close: () => provider.shutdown(),
  }
}

function markFailed(span: Span, error: unknown): void {
  span.setStatus({ code: SpanStatusCode.ERROR })
  if (error instanceof Error) span.setAttribute('error.type', error.name)
}
