import type { Context } from 'hono'
import { openPostgres } from '../db/postgres.ts'
import { createApp } from './app.ts'
import type { Dependencies } from './context.ts'
import { ApiError } from './errors.ts'
import { systemClock } from './ports/clock.ts'
import { createConsoleLog } from './ports/log.ts'
import { createLateSigner } from './ports/jose-signer.ts'
import { openPgBossQueue } from './ports/pg-boss-queue.ts'
import { noLauncher } from './ports/runner-launcher.ts'
import { createS3BlobStore } from './ports/s3-blob-store.ts'
import { pipeExtents } from './services/files/pipe-extents.ts'
import { reapJobs } from './services/jobs/reap.ts'
import { readBindings } from './worker-bindings.ts'

/** Of one request: with the store's they must stay below the 6 connections that a Worker may open. */
const MAX_CONNECTIONS = 5
/** The period of RATE_LIMIT in infra/wrangler.jsonc. */
const RATE_LIMIT_SECONDS = 60

const log = createConsoleLog()

interface Execution { waitUntil(promise: Promise<unknown>): void }
/** What the Worker hands to its application for one request. */
interface RequestEnv { bindings: object; atEnd: (close: () => Promise<void>) => void }

const app = createApp(async (c) => {
  const { bindings, atEnd } = c.env as RequestEnv
  const { dependencies, close } = connect(bindings)
  atEnd(close)
  await assertNoAbuse(c, bindings)
  return dependencies
})

/** Nothing that has a connection outlives a request: workerd lets no other one use it. */
function connect(env: object): { dependencies: Dependencies; close: () => Promise<void> } {
  const bindings = readBindings(env)
  const fresh = openPostgres(bindings.DATABASE.connectionString, { max: MAX_CONNECTIONS })
  const cached = openPostgres(bindings.DATABASE_CACHED.connectionString, { max: 1 })
  const dependencies: Dependencies = {
    db: fresh.db,
    immutableDb: cached.db,
    blobs: createS3BlobStore({ settings: bindings.s3, clock: systemClock }),
    streamExtents: pipeExtents(log),
    queue: openPgBossQueue(fresh.db),
    launcher: noLauncher,
    signer: createLateSigner({ db: fresh.db, issuer: bindings.PORTLLM_PUBLIC_URL, clock: systemClock }),
    merger: null,
    clock: systemClock,
    log,
    publicUrl: bindings.PORTLLM_PUBLIC_URL,
    deployment: 'edge',
  }
  return { dependencies, close: async () => void (await Promise.all([fresh.close(), cached.close()])) }
}

/** The binding counts for each location, and lets some more pass than it says: no quota. */
async function assertNoAbuse(c: Context, env: object): Promise<void> {
  const { success } = await readBindings(env).RATE_LIMIT.limit({ key: c.req.header('cf-connecting-ip') ?? 'unknown' })
  if (!success) throw new ApiError('too_many_requests', `More requests came from your address than this registry takes in ${RATE_LIMIT_SECONDS} seconds. Wait that long, then send the request again.`, { retryAfterSeconds: RATE_LIMIT_SECONDS })
}

/** The answer, and `close` when nothing of it asks the database any more: a stream of events does so until its end. */
function closeAfter(response: Response, close: () => Promise<void>, execution: Execution): Response {
  if (response.body === null || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
    execution.waitUntil(close())
    return response
  }
  const { readable, writable } = new IdentityTransformStream()
  // A client that leaves ends the pipe with an error, which is nobody's.
  execution.waitUntil(response.body.pipeTo(writable).catch(() => {}).finally(close))
  return new Response(readable, response)
}

export default {
  async fetch(request: Request, env: object, execution: Execution): Promise<Response> {
    let close = async () => {}
    const requestEnv: RequestEnv = { bindings: env, atEnd: (work) => { close = work } }
    return closeAfter(await app.fetch(request, requestEnv, execution as never), close, execution)
  },

  /** The cron trigger ends lost jobs. The queue's own tables and garbage are the dispatcher's: it has no limit of requests. */
  async scheduled(_event: unknown, env: object): Promise<void> {
    const { dependencies, close } = connect(env)
    try {
      await reapJobs({ ctx: dependencies })
    } finally {
      await close()
    }
  },
}
