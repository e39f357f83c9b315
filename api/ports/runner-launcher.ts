/** Starts runners when there is work for them. */
export interface RunnerLauncher {
  /** Called after a job was enqueued: makes sure that a runner is there or on its way. Never throws. */
  wake(): void
  /** Stops what it started and waits for it. */
  stop(): Promise<void>
}

/** Where runners are started by somebody else, or run all the time. */
export const noLauncher: RunnerLauncher = { wake() {}, async stop() {} }
