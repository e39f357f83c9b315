import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Context } from 'hono'
import type { App, AppEnv } from '../app.ts'
import { ApiError } from '../errors.ts'
import { BlobRefusedError, type DirectoryBlobStore } from './directory-blob-store.ts'
import type { BlobConstraints } from './directory-blob-signature.ts'
import { alreadySent } from './send-stream.ts'

/** A little more than the largest part of most uploads: who sends more after a refusal is cut off. */
const MAX_DRAINED_BYTES = 128 * 1024 * 1024

/** What S3 does for the other deployments: GET and PUT of objects by signed URL. Node only. */
export function registerBlobRoutes(app: App, store: DirectoryBlobStore): void {
  app.get('/blobs/:key{.+}', (c) => getBlob(c, store))
  app.put('/blobs/:key{.+}', (c) => putBlob(c, store))
}

async function getBlob(c: Context<AppEnv>, store: DirectoryBlobStore): Promise<Response> {
  const { key, constraints } = check(c, store)
  const size = await store.size(key)
  if (size === null) throw new ApiError('not_found', 'The object of this URL is not there any more. Ask for fresh URLs.')
  const asked = readRange(c.req.header('range'), size)
  const { range: signed } = constraints
  if (signed !== undefined && (asked === null || asked.offset !== signed.offset || asked.length !== signed.length)) {
    throw new ApiError('range_not_satisfiable', 'This URL is for one range of bytes. Send the Range header that came with it.')
  }
  const range = asked ?? { offset: 0, length: size }
  const headers: Record<string, string> = {
    'Content-Type': 'application/octet-stream',
    'Content-Length': String(range.length),
    'Accept-Ranges': 'bytes',
    'Cache-Control': 'private, no-store',
    'X-Request-Id': c.var.requestId,
    ...(asked === null ? {} : { 'Content-Range': `bytes ${range.offset}-${range.offset + range.length - 1}/${size}` }),
  }
  const status = asked === null ? 200 : 206
  if (c.req.method === 'HEAD' || range.length === 0) return new Response(null, { status, headers })
  const { outgoing } = c.env as unknown as { outgoing: ServerResponse }
  await store.send(key, range, outgoing, () => outgoing.writeHead(status, headers))
  return alreadySent()
}

async function putBlob(c: Context<AppEnv>, store: DirectoryBlobStore): Promise<Response> {
  const { incoming } = c.env as unknown as { incoming: IncomingMessage }
  try {
    const { key, constraints } = check(c, store)
    const length = c.req.header('content-length')
    if (constraints.size === undefined || (length !== undefined && Number(length) !== constraints.size)) {
      throw new ApiError('invalid_request', `This URL takes exactly ${constraints.size} bytes, not ${length}.`)
    }
    await store.write(key, constraints, incoming.iterator({ destroyOnReturn: false }))
    return c.body(null, 200)
  } catch (error) {
    await drain(incoming)
    if (!(error instanceof BlobRefusedError)) throw error
    throw new ApiError(error.reason === 'digest' ? 'digest_mismatch' : 'invalid_request', `${error.message} Nothing was stored. Send the file again.`)
  }
}

/** Reads on to the end of a body that was refused: most clients look at the answer only after they have sent everything. */
async function drain(incoming: IncomingMessage): Promise<void> {
  let rest = MAX_DRAINED_BYTES
  try {
    for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
      rest -= (chunk as Buffer).length
      if (rest < 0) break
    }
  } catch {
    // The client went away: nobody waits for the answer.
  }
}

function check(c: Context<AppEnv>, store: DirectoryBlobStore): { key: string; constraints: BlobConstraints } {
  const url = new URL(c.req.url)
  const key = url.pathname.slice('/blobs/'.length)
  const method = c.req.method === 'HEAD' ? 'GET' : c.req.method
  const constraints = store.verify(method, key, url.searchParams)
  if (constraints === null) throw new ApiError('forbidden', 'The signature of this URL is wrong or has expired. Ask for a fresh one.')
  return { key, constraints }
}

/** Null for a missing or multiple range, which is answered with the whole object. */
function readRange(header: string | undefined, size: number): { offset: number; length: number } | null {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? '')
  if (match === null) return null
  const offset = Number(match[1])
  const end = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1)
  if (offset >= size || end < offset) throw new ApiError('range_not_satisfiable', `The object has ${size} bytes; the range ${header} is not in it.`)
  return { offset, length: end - offset + 1 }
}

