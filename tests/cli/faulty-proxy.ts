import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Transform } from 'node:stream'

export interface Passing {
  readonly method: string
  readonly path: string
  readonly userAgent: string
}

/** What happens to a request: `stall` never answers, `break` cuts the connection half-way through the answer. */
export type Fate = 'pass' | 'stall' | 'break' | 'flip-first-byte' | number

export interface FaultyProxy {
  readonly url: string
  /** Where requests go; set once the registry runs. */
  upstream: string
  /** Every request since the last reset. */
  readonly requests: Passing[]
  decide: (passing: Passing) => Fate
  reset(): void
  close(): Promise<void>
}

/** Stands between the command line and a registry, and does what networks do. */
export async function startFaultyProxy(): Promise<FaultyProxy> {
  const server = createServer({ requestTimeout: 0 }, (incoming, outgoing) => pass(proxy, incoming, outgoing))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy: FaultyProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    upstream: '',
    requests: [],
    decide: () => 'pass',
    reset() {
      proxy.requests.length = 0
      proxy.decide = () => 'pass'
    },
    close: () => new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    }),
  }
  return proxy
}

function pass(proxy: FaultyProxy, incoming: IncomingMessage, outgoing: ServerResponse): void {
  const passing = { method: incoming.method!, path: incoming.url!, userAgent: incoming.headers['user-agent'] ?? '' }
  proxy.requests.push(passing)
  const fate = proxy.decide(passing)
  if (fate === 'stall') return void incoming.resume()
  if (typeof fate === 'number') {
    incoming.resume()
    return void outgoing.writeHead(fate).end('<html>not today</html>')
  }
  const forward = request(`${proxy.upstream}${incoming.url}`, { method: incoming.method, headers: incoming.headers }, (answer) => {
    outgoing.writeHead(answer.statusCode!, answer.headers)
    if (fate === 'break') {
      answer.once('data', (chunk: Buffer) => outgoing.write(chunk.subarray(0, chunk.length >> 1), () => outgoing.destroy()))
      return
    }
    answer.pipe(fate === 'flip-first-byte' ? flipFirstByte() : new Transform({ transform: (chunk, _, done) => done(null, chunk) })).pipe(outgoing)
  })
  forward.on('error', () => outgoing.destroy())
  outgoing.on('close', () => forward.destroy())
  incoming.pipe(forward)
}

function flipFirstByte(): Transform {
  let isFirst = true
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const bytes = Buffer.from(chunk)
      if (isFirst && bytes.length > 0) bytes[0] = bytes[0]! ^ 0xff
      isFirst = false
      done(null, bytes)
    },
  })
}
