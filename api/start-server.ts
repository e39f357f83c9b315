import type { Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { createAdaptorServer, type HttpBindings } from '@hono/node-server'
import { createApp } from './app.ts'
import type { ServerConfig } from './config.ts'
import { connectBlobs } from './connect-blobs.ts'
import { connectDatabase } from './connect-database.ts'
import type { Dependencies } from './context.ts'
import { lockDataFolder } from './data-folder.ts'
import { listen } from './listener.ts'
import { startObservability } from './observability/start.ts'
import { systemClock } from './ports/clock.ts'
import { collectGarbage as freeMemory } from '../gpu-runner/garbage-collector.ts'
import { createJoseSigner } from './ports/jose-signer.ts'
import { createLocalLauncher } from './ports/local-launcher.ts'
import type { Log } from './ports/log.ts'
import { createNativeMerger } from './ports/native-merger.ts'
import { startPgBossQueue } from './ports/pg-boss-queue.ts'
import { noLauncher } from './ports/runner-launcher.ts'
import { answerProbe, createReadiness, isProbe } from './readiness.ts'
import { repeat } from './repeat.ts'
import { checkHealth } from './services/health/check.ts'
import { streamExtents } from './services/files/stream-extents.ts'
import { collectGarbage } from './services/garbage/collect.ts'
import { collectWhenDue } from './services/garbage/collect-when-due.ts'
import { createLocalRunnerToken } from './services/tokens/create-local-runner.ts'
import { reapJobs } from './services/jobs/reap.ts'
import { bootstrap } from './services/users/bootstrap.ts'
import { VERSION } from './version.ts'

export interface RunningServer {
  /** Of the listening socket, without a trailing slash. */
  readonly url: string
  /** Of the metrics, where they have a listener. */
  readonly metricsUrl: string | null
  /** The administrator's token, at the first start only. */
  readonly bootstrapToken: string | null
  /** For tests that look behind the API. */
  readonly dependencies: Dependencies
  /**
   * Says that it is not ready, ends its runners, takes no new connection after `drainSeconds`, and lets what runs end
   * within `graceSeconds`.
   */
  close(): Promise<void>
}

/** How often lost jobs are ended and waiting ones given a runner. */
const REAP_MS = 5_000

/** How often it is asked whether garbage collection is due. */
const COLLECT_MS = 3600_000

/** Starts the registry on Node. Throws ConfigError for what the person who starts it can put right. */
export async function startServer(config: ServerConfig, { onFatal, log }: { onFatal: (error: Error) => void; log: Log }): Promise<RunningServer> {
  const undo: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const lock = await lockDataFolder(config.data, onFatal)
    undo.push(lock.release)
    const observability = await startObservability(config, log)
    undo.push(observability.close)
    const readiness = createReadiness(log)
    let handle: (request: Request, env: object) => Response | Promise<Response> = () => new Response('The registry is starting.\n', { status: 503 })
    const http = createAdaptorServer({ fetch: (request, env) => isProbe((env as HttpBindings).incoming) ? answerProbe(request, readiness) : handle(request, env) }) as Server
    // Node's own limits would cut long uploads, and race with the expiry of common clients.
    Object.assign(http, { requestTimeout: 0, keepAliveTimeout: 65_000 })
    const listener = await listen(http, { host: config.host, port: config.port, setting: '--port' })
    const { url } = listener
    const stopHttp = async () => {
      const cut = await listener.close(config.graceSeconds)
      if (cut > 0) log.warn({ requests: cut }, 'Requests were cut off: their time of grace was over')
    }
    undo.push(stopHttp)
    const database = await connectDatabase(config, observability)
    undo.push(database.close)
    const { db } = database
    const queue = await startPgBossQueue(database, { supervise: config.supervise, migrate: config.migrate !== 'never', onError: (err) => log.error({ err }, 'The job queue has a problem') })
    // Again, so that it comes before what requests need: the second time does nothing.
    undo.push(queue.stop, stopHttp)
    const publicUrl = config.publicUrl ?? url
    const store = await connectBlobs({ config, db, publicUrl })
    // Nobody stages anything yet.
    if (store.isAlone) await collectGarbage({ ctx: { db, blobs: store.blobs }, input: { alone: true, graceSeconds: 0, kinds: ['uploads', 'attempts', 'incoming'] } })
    const blobs = observability.traceBlobs(store.blobs)
    const signer = await createJoseSigner({ db, issuer: publicUrl, clock: systemClock })
    const bootstrapToken = await bootstrap({ ctx: { db } })
    const launcher = config.startRunners
      ? createLocalLauncher({ registryUrl: url, token: await createLocalRunnerToken({ ctx: { db, clock: systemClock } }), logFolder: config.data })
      : noLauncher
    undo.push(() => launcher.stop())
    const deployment = config.databaseUrl === undefined ? 'embedded' : 'server'
    const stopping = new AbortController()
    const merger = observability.countMerges(createNativeMerger(blobs))
    const dependencies: Dependencies = { db, immutableDb: db, blobs, streamExtents, queue, launcher, signer, merger, clock: systemClock, log, stopping: stopping.signal, publicUrl, deployment }
    const app = createApp(() => dependencies, observability.middleware)
    store.register(app)
    handle = app.fetch
    if (config.supervise) {
      undo.push(repeat('watch over jobs', () => reapJobs({ ctx: dependencies }), REAP_MS, log))
      undo.push(repeat('garbage collection', (signal) => collectWhenDue({ ctx: dependencies, signal, graceSeconds: config.garbageGraceHours * 3600 }), COLLECT_MS, log))
    }
    observability.watchDatabase(database, config)
    readiness.start({ database: () => checkHealth({ ctx: dependencies }), queue: queue.check, blobs: store.check })
    undo.push(async () => {
      log.info({ drainSeconds: config.drainSeconds, graceSeconds: config.graceSeconds }, 'The server is ending; what runs may end')
      readiness.drain()
      stopping.abort()
      await Promise.all([launcher.stop(), sleep(config.drainSeconds * 1000)])
    })
    freeMemory('major')
    log.info({ url, deployment, version: VERSION, metrics: observability.metricsUrl }, 'The server is ready')
    return { url, metricsUrl: observability.metricsUrl, bootstrapToken, dependencies, close }
  } catch (error) {
    await close()
    throw error
  }
}
