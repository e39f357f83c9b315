import type { Core } from '../core/core.ts'
import type { Progress } from '../protocol.ts'

/** What a job gets beside its spec. */
export interface JobContext {
  readonly core: Core
  /** Aborted when the attempt is cancelled, lost or stopped; its reason is what the job then throws. */
  readonly signal: AbortSignal
  /** Called often; cheap. */
  report(progress: Progress): void
}
