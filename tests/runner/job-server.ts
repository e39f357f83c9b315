import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Report {
  readonly job: string
  readonly verb: string
  readonly token: string
  readonly body: { progress?: { done: number } | null; result?: unknown; code?: string; message?: string; retryable?: boolean }
}

export interface JobServer {
  readonly url: string
  /** Handed out one by one. */
  readonly jobs: { id: string; kind: string; spec: unknown; leaseSeconds?: number }[]
  readonly claims: { kinds: string[]; waitSeconds: number; runner: { name: string } }[]
  readonly reports: Report[]
  /** Statuses for the next requests with this verb, before they are answered as usual. */
  readonly refusals: { verb: string; status: number; code: string }[]
  cancel: boolean
  close(): Promise<void>
}

/** The registry's side of the runner protocol, over real HTTP. `next` makes a job where `jobs` has none. */
export async function startJobServer(next: () => Promise<JobServer['jobs'][number] | undefined> = async () => undefined): Promise<JobServer> {
  const state = { jobs: [] as JobServer['jobs'], claims: [] as JobServer['claims'], reports: [] as Report[], refusals: [] as JobServer['refusals'], cancel: false }
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = JSON.parse(Buffer.concat(chunks).toString()) as never
    const answer = (status: number, value?: unknown) => {
      const text = value === undefined ? '' : JSON.stringify(value)
      response.writeHead(status, { 'content-type': 'application/json' }).end(text)
    }
    const verb = request.url!.split('/').at(-1)!
    const token = request.headers.authorization ?? ''
    const at = state.refusals.findIndex((refusal) => refusal.verb === verb)
    if (at >= 0) {
      const [{ status, code }] = state.refusals.splice(at, 1) as [JobServer['refusals'][number]]
      return answer(status, { error: { code, message: `refused with ${code}`, requestId: 'r' } })
    }
    if (verb === 'claim') {
      if (token !== 'Bearer runner-token') return answer(401, { error: { code: 'unauthenticated', message: 'no', requestId: 'r' } })
      state.claims.push(body)
      const job = state.jobs.shift() ?? (await next())
      if (job === undefined) return answer(204)
      return answer(200, { job: { id: job.id, kind: job.kind, attempt: 1 }, token: `attempt-of-${job.id}`, leaseSeconds: job.leaseSeconds ?? 20, spec: job.spec })
    }
    state.reports.push({ job: request.url!.split('/').at(-2)!, verb, token, body })
    if (verb === 'heartbeat') return answer(200, { cancel: state.cancel })
    answer(204)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return Object.assign(state, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    }),
  })
}
