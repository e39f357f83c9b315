import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { createApp } from './app.ts'
import { ConfigError, type ServerConfig } from './config.ts'
import { connectBlobs } from './connect-blobs.ts'
import { connectDatabase } from './connect-database.ts'
import type { Dependencies } from './context.ts'
import { lockDataFolder } from './data-folder.ts'
import { systemClock } from './ports/clock.ts'
import { collectGarbage } from '../gpu-runner/garbage-collector.ts'
import { createJoseSigner } from './ports/jose-signer.ts'
import { createLocalLauncher } from './ports/local-launcher.ts'
import { createNativeMerger } from './ports/native-merger.ts'
import { startPgBossQueue } from './ports/pg-boss-queue.ts'
import { noLauncher } from './ports/runner-launcher.ts'
import { removeUnreachableBlobs } from './services/blobs/remove-unreachable.ts'
import { streamExtents } from './services/files/stream-extents.ts'
import { sweepStaged } from './services/uploads/sweep-staged.ts'
import { createLocalRunnerToken } from './services/tokens/create-local-runner.ts'
import { reapJobs } from './services/jobs/reap.ts'
import { bootstrap } from './services/users/bootstrap.ts'

export interface RunningServer {
  /** Of the listening socket, without a trailing slash. */
  readonly url: string
  /** The administrator's token, at the first start only. */
  readonly bootstrapToken: string | null
  /** For tests that look behind the API. */
  readonly dependencies: Dependencies
  close(): Promise<void>
}

/** Clients that are still reading when the server stops get this long. */
const CLOSE_GRACE_MS = 5_000

/** How often lost jobs are ended and waiting ones given a runner. */
const REAP_MS = 5_000

/** Starts the registry on Node. Throws ConfigError for what the person who starts it can put right. */
export async function startServer(config: ServerConfig, { onFatal }: { onFatal: (error: Error) => void }): Promise<RunningServer> {
  const undo: (() => Promise<void>)[] = []
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const lock = await lockDataFolder(config.data, onFatal)
    undo.push(lock.release)
    let handle: (request: Request, env: object) => Response | Promise<Response> = () => new Response('The registry is starting.\n', { status: 503 })
    const http = createAdaptorServer({ fetch: (request, env) => handle(request, env) }) as Server
    // Node's own limits would cut long uploads, and race with the expiry of common clients.
    Object.assign(http, { requestTimeout: 0, keepAliveTimeout: 65_000 })
    const url = await listen(http, config)
    const stopHttp = once(() => stop(http))
    undo.push(stopHttp)
    const database = await connectDatabase(config)
    undo.push(database.close)
    const { db } = database
    const queue = await startPgBossQueue(database, (error) => console.error(`The job queue: ${error.message}`))
    // Again, so that it comes before what requests need: the second time does nothing.
    undo.push(queue.stop, stopHttp)
    const publicUrl = config.publicUrl ?? url
    const { blobs, register } = await connectBlobs({ config, db, publicUrl })
    await sweepStaged({ ctx: { db, blobs } })
    await removeUnreachableBlobs({ ctx: { db, blobs } })
    const signer = await createJoseSigner({ db, issuer: publicUrl, clock: systemClock })
    const bootstrapToken = await bootstrap({ ctx: { db } })
    const launcher = config.startRunners
      ? createLocalLauncher({ registryUrl: url, token: await createLocalRunnerToken({ ctx: { db, clock: systemClock } }), logFolder: config.data })
      : noLauncher
    undo.push(() => launcher.stop())
    const deployment = config.databaseUrl === undefined ? 'embedded' : 'server'
    const dependencies: Dependencies = { db, immutableDb: db, blobs, streamExtents, queue, launcher, signer, merger: createNativeMerger(blobs), clock: systemClock, publicUrl, deployment }
    const app = createApp(() => dependencies)
    register(app)
    handle = app.fetch
    undo.push(repeat(() => reapJobs({ ctx: dependencies }), REAP_MS))
    collectGarbage('major')
    return { url, bootstrapToken, dependencies, close }
  } catch (error) {
    await close()
    throw error
  }
}

function once(work: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined
  return () => (done ??= work())
}

/** Runs `work` now and then again and again, never twice at once. Returns how to stop and wait for it. */
function repeat(work: () => Promise<void>, milliseconds: number): () => Promise<void> {
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  let running = Promise.resolve()
  const turn = () => {
    running = work()
      .catch((error: Error) => console.error(`The watch over jobs: ${error.message}`))
      .then(() => void (stopped || (timer = setTimeout(turn, milliseconds))))
  }
  turn()
  return async () => {
    stopped = true
    clearTimeout(timer)
    await running
  }
}

function listen(http: Server, config: ServerConfig): Promise<string> {
  return new Promise((resolve, reject) => {
    http.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'another program listens there; choose another --port' : error.message
      reject(new ConfigError(`Cannot listen on ${config.host} port ${config.port}: ${why}.`))
    })
    http.listen(config.port, config.host, () => {
      const { port } = http.address() as AddressInfo
      const host = config.host === '0.0.0.0' ? '127.0.0.1' : config.host === '::' ? '[::1]' : config.host.includes(':') ? `[${config.host}]` : config.host
      resolve(`http://${host}:${port}`)
    })
  })
}

function stop(http: Server): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => http.closeAllConnections(), CLOSE_GRACE_MS)
    http.close(() => {
      clearTimeout(cut)
      resolve()
    })
    http.closeIdleConnections()
  })
}
