import { createServer } from 'node:http'
import type { Log } from '../ports/log.ts'
import { listen, type Listener } from '../listener.ts'
import type { Metrics } from './metrics.ts'

/** `/metrics` on a listener of its own: what it tells is for whoever runs the server, so no proxy may pass it on by accident. */
export async function serveMetrics({ metrics, log, host, port }: { metrics: Metrics; log: Log; host: string; port: number }): Promise<Listener> {
  const http = createServer((request, response) => {
    if (request.url !== '/metrics') return void response.writeHead(404).end('The metrics are at /metrics.\n')
    metrics.text().then(
      (text) => response.writeHead(200, { 'Content-Type': metrics.contentType }).end(text),
      (err: unknown) => {
        log.error({ err }, 'The metrics could not be collected')
        response.writeHead(503).end('The metrics could not be collected; the log says why.\n')
      },
    )
  })
  return listen(http, { host, port, setting: 'PORTLLM_METRICS_PORT' })
}
