import { CreateBucketCommand } from '@aws-sdk/client-s3'
import postgres from 'postgres'
import type { ServerConfig } from '../../api/config.ts'
import type { Dependencies } from '../../api/context.ts'
import { systemClock } from '../../api/ports/clock.ts'
import { migrateServer } from '../../api/migrate-server.ts'
import { createJoseSigner } from '../../api/ports/jose-signer.ts'
import { createLocalLauncher } from '../../api/ports/local-launcher.ts'
import type { Log } from '../../api/ports/log.ts'
import { startPgBossQueue } from '../../api/ports/pg-boss-queue.ts'
import { noLauncher } from '../../api/ports/runner-launcher.ts'
import { createS3BlobStore } from '../../api/ports/s3-blob-store.ts'
import { createS3Client, type S3Settings } from '../../api/ports/s3-client.ts'
import { repeat } from '../../api/repeat.ts'
import { streamExtents } from '../../api/services/files/stream-extents.ts'
import { reapJobs } from '../../api/services/jobs/reap.ts'
import { createLocalRunnerToken } from '../../api/services/tokens/create-local-runner.ts'
import { bootstrap } from '../../api/services/users/bootstrap.ts'
import type { RunningServer } from '../../api/start-server.ts'
import { openPostgres } from '../../db/postgres.ts'
import { startEdge, type RunningEdge } from './edge.ts'
import { freePort } from './free-port.ts'

const REAP_MS = 1_000
/** What the role of DATABASE_CACHED may read: docs/decisions/0007. */
const IMMUTABLE_TABLES = ['files', 'extents', 'changed_tensors']

export interface EdgeRegistry extends RunningServer {
  readonly edge: RunningEdge
}

/**
 * The Worker, and beside it what its deployment has on Node: the migrated database, the dispatcher, and runners where they
 * are asked for. `dependencies` are of this process, on the same database and bucket. `onLog` hears what the Worker logs.
 */
export async function startEdgeRegistry(config: ServerConfig, { log, onLog }: { log: Log; onLog: (line: string) => void }): Promise<EdgeRegistry> {
  const { databaseUrl, s3 } = config
  if (databaseUrl === undefined || s3 === undefined) throw new Error('an edge registry needs a database and a bucket')
  await Promise.all([migrateServer(databaseUrl), makeBucket(s3)])
  const database = { engine: 'postgres', url: databaseUrl, ...openPostgres(databaseUrl) } as const
  const { db } = database
  const bootstrapToken = await bootstrap({ ctx: { db } })
  const queue = await startPgBossQueue(database, { supervise: true, migrate: false, onError: (err) => log.error({ err }, 'The job queue has a problem') })
  const edge = await startEdge({ databaseUrl, cachedDatabaseUrl: await makeCacheRole(databaseUrl), s3, port: config.port === 0 ? await freePort() : config.port, onLog })
  const { url } = edge
  const launcher = config.startRunners ? createLocalLauncher({ registryUrl: url, token: await createLocalRunnerToken({ ctx: { db, clock: systemClock } }), logFolder: config.data }) : noLauncher
  const dependencies: Dependencies = {
    db, immutableDb: db, blobs: createS3BlobStore({ settings: s3, clock: systemClock }), streamExtents, queue, launcher, log,
    signer: await createJoseSigner({ db, issuer: url, clock: systemClock }), merger: null, clock: systemClock, publicUrl: url, deployment: 'edge',
  }
  const stopReaping = repeat('watch over jobs', () => reapJobs({ ctx: dependencies }), REAP_MS, log)
  return {
    url,
    metricsUrl: null,
    bootstrapToken,
    dependencies,
    edge,
    async close() {
      await stopReaping()
      await launcher.stop()
      await edge.stop()
      await queue.stop()
      await database.close()
    },
  }
}

/** The bucket, where it is not there yet. */
async function makeBucket(s3: S3Settings): Promise<void> {
  await createS3Client(s3).send(new CreateBucketCommand({ Bucket: s3.bucket })).catch((error: Error) => {
    if (error.name !== 'BucketAlreadyOwnedByYou') throw error
  })
}

/** The URL of a database for the role of DATABASE_CACHED. */
export function cacheUrl(databaseUrl: string): string {
  const url = new URL(databaseUrl)
  return Object.assign(url, { username: `cache${url.pathname.replaceAll(/\W/g, '_')}` }).href
}

/** The role reads what never changes and nothing else: a query that does not belong in a cache fails. */
async function makeCacheRole(databaseUrl: string): Promise<string> {
  const url = cacheUrl(databaseUrl)
  const role = new URL(url).username
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
  await sql.unsafe(`do $$ begin create role ${role} login; exception when duplicate_object then null; end $$; grant select on ${IMMUTABLE_TABLES.join(', ')} to ${role}`)
  await sql.end()
  return url
}
