import type { Database } from '../db/database.ts'
import type { BlobStore } from './ports/blob-store.ts'
import type { Clock } from './ports/clock.ts'
import type { JobQueue } from './ports/job-queue.ts'
import type { Log } from './ports/log.ts'
import type { RunnerLauncher } from './ports/runner-launcher.ts'
import type { Signer } from './ports/signer.ts'
import type { TensorMerger } from './ports/tensor-merger.ts'
import type { Principal } from './services/authorization/principal.ts'
import type { StreamExtents } from './services/files/stream-extents.ts'

export type Deployment = 'embedded' | 'server' | 'edge'

/** What the registry is made of; each deployment brings its own. */
export interface Dependencies {
  readonly db: Database
  /** For what never changes once it is there, and belongs to rows that `db` has just shown: a cache may answer (docs/decisions/0007). */
  readonly immutableDb: Database
  readonly blobs: BlobStore
  readonly streamExtents: StreamExtents
  readonly queue: JobQueue
  readonly launcher: RunnerLauncher
  readonly signer: Signer
  /** Null where no merge core can run, as on the edge: nothing is computed on read there. */
  readonly merger: TensorMerger | null
  readonly clock: Clock
  /** With the request's id in every line, where there is a request. */
  readonly log: Log
  /** Fires when this server is about to end: what waits for something is then answered at once. Absent where none ever ends by plan. */
  readonly stopping?: AbortSignal
  /** Base of absolute URLs in answers, without a trailing slash. */
  readonly publicUrl: string
  readonly deployment: Deployment
}

/** What every service gets: `verbEntity({ ctx, input })`. */
export interface RequestContext extends Dependencies {
  readonly principal: Principal
  readonly requestId: string
}
