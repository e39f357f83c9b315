import { createRoute, z } from '@hono/zod-openapi'
import { streamSSE } from 'hono/streaming'
import type { App } from '../../app.ts'
import { findJob } from '../../services/jobs/find.ts'
import { watchJob } from '../../services/jobs/watch.ts'
import { errorResponses } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'

/** Proxies cut streams that say nothing for longer. */
const HEARTBEAT_MS = 10_000

const route = createRoute({
  method: 'get',
  path: '/v1/jobs/{id}/events',
  operationId: 'watchJob',
  tags: ['jobs'],
  summary: 'A job as it changes',
  description: 'Server-sent events: an event `job` with the whole job at every change, until it has ended. Comments keep the stream alive.',
  security: tokenOptional,
  request: { params: z.object({ id: z.uuid() }) },
  responses: { 200: { description: 'The stream.', content: { 'text/event-stream': { schema: z.string() } } }, ...errorResponses(404) },
})

export function registerWatchJob(app: App): void {
  app.openapi(route, async (c) => {
    const { ctx } = c.var
    const input = c.req.valid('param')
    await findJob({ ctx, input })
    return streamSSE(c, async (stream) => {
      const aborted = new AbortController()
      stream.onAbort(() => aborted.abort())
      const heartbeat = setInterval(() => void stream.write(': still here\n\n'), HEARTBEAT_MS)
      try {
        for await (const job of watchJob({ ctx, input, signal: aborted.signal })) await stream.writeSSE({ event: 'job', data: JSON.stringify(job) })
      } finally {
        clearInterval(heartbeat)
      }
    }) as never
  })
}
