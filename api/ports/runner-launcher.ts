import type { JobKind } from './job-queue.ts'

/** Starts runners when there is work for them. */
export interface RunnerLauncher {
  /** Called after jobs of these kinds were enqueued: makes sure that a runner for them is there or on its way. Never throws. */
  wake(kinds: readonly JobKind[]): void
  /** Stops what it started and waits for it. */
  stop(): Promise<void>
}

/** Where runners are started by somebody else, or run all the time. */
export const noLauncher: RunnerLauncher = { wake() {}, async stop() {} }
