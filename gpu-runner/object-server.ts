import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { SignedRequest } from './protocol.ts'

/** What one request meets instead of an answer. */
export interface Fault {
  readonly method: 'GET' | 'PUT'
  readonly path: string
  /** Answer with this status at once, or break the connection after so many body bytes. */
  readonly status?: number
  readonly cutAfter?: number
}

export interface ObjectServer {
  get(path: string, range?: { offset: number; length: number }): SignedRequest
  put(path: string): SignedRequest
  readonly objects: Map<string, Buffer>
  /** Paths of which no request is ever answered. */
  readonly stalled: Set<string>
  /** Each is met once, in order, by the first request that it fits. */
  readonly faults: Fault[]
  /** `GET /path bytes=0-9` of every request. */
  readonly requests: string[]
  close(): Promise<void>
}

/** For tests: objects over real HTTP, as a blob store's signed URLs give and take them. A ranged URL serves its range alone. */
export async function startObjectServer(): Promise<ObjectServer> {
  const objects = new Map<string, Buffer>()
  const stalled = new Set<string>()
  const faults: Fault[] = []
  const requests: string[] = []
  const server = createServer((request, response) => {
    const { pathname: path, searchParams } = new URL(request.url!, 'http://x')
    requests.push(`${request.method} ${path}${request.headers.range ? ` ${request.headers.range}` : ''}`)
    if (stalled.has(path)) return
    const at = faults.findIndex((fault) => fault.method === request.method && fault.path === path)
    const fault = at < 0 ? undefined : faults.splice(at, 1)[0]
    if (fault?.status !== undefined) {
      response.writeHead(fault.status, { 'content-length': 0, connection: 'close' }).end()
    } else if (request.method === 'PUT') {
      receive(request, response, fault?.cutAfter, (bytes) => objects.set(path, bytes))
    } else {
      send(objects.get(path), searchParams.get('range'), request, response, fault?.cutAfter)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    get(path, range): SignedRequest {
      if (range === undefined) return { method: 'GET', url: base + path, headers: {} }
      const header = `bytes=${range.offset}-${range.offset + range.length - 1}`
      return { method: 'GET', url: `${base}${path}?range=${header}`, headers: { Range: header } }
    },
    put: (path) => ({ method: 'PUT', url: base + path, headers: {} }),
    objects,
    stalled,
    faults,
    requests,
    close: () => new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    }),
  }
}

function send(object: Buffer | undefined, signed: string | null, request: IncomingMessage, response: ServerResponse, cutAfter: number | undefined): void {
  const asked = request.headers.range
  if (object === undefined) return void response.writeHead(404, { 'content-length': 0 }).end()
  if (signed !== null && asked !== signed) return void response.writeHead(416, { 'content-length': 0 }).end()
  const match = /^bytes=(\d+)-(\d*)$/.exec(asked ?? '')
  const from = match ? Number(match[1]) : 0
  const to = match?.[2] ? Number(match[2]) : object.byteLength - 1
  const body = object.subarray(from, to + 1)
  response.writeHead(match ? 206 : 200, { 'content-length': body.byteLength, ...(match ? { 'content-range': `bytes ${from}-${to}/${object.byteLength}` } : {}) })
  if (cutAfter === undefined) return void response.end(body)
  response.write(body.subarray(0, cutAfter), () => setTimeout(() => response.destroy(), 50))
}

function receive(request: IncomingMessage, response: ServerResponse, cutAfter: number | undefined, store: (bytes: Buffer) => void): void {
  const chunks: Buffer[] = []
  let length = 0
  request.on('error', () => undefined)
  request.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    length += chunk.byteLength
    if (cutAfter !== undefined && length >= cutAfter) request.destroy()
  })
  request.on('end', () => {
    if (length !== Number(request.headers['content-length'])) return void response.writeHead(400).end()
    store(Buffer.concat(chunks))
    response.writeHead(200, { 'content-length': 0 }).end()
  })
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
