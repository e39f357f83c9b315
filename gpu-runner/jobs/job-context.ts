import type { Core } from '../core/core.ts'
import type { MadeFile, OutputPlan, Progress } from '../protocol.ts'

/** What a job gets beside its spec. */
export interface JobContext {
  readonly core: Core
  /** Aborted when the attempt is cancelled, lost or stopped; its reason is what the job then throws. */
  readonly signal: AbortSignal
  /** Called often; cheap. */
  report(progress: Progress): void
}

/** What a job gets that Python does. */
export interface ResearchContext extends Omit<JobContext, 'core'> {
  /** Of the job alone; what an earlier attempt left is in it. */
  readonly folder: string
  /** Where the registry wants what the job has made. */
  outputs(files: readonly MadeFile[]): Promise<OutputPlan>
  /** A line of Python's, for the runner's log. */
  log(line: string): void
}
