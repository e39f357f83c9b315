import type { Log } from './ports/log.ts'

/** Closes on SIGINT or SIGTERM and exits: 0, or 1 where that fails. A second signal ends the process at once. */
export function endOnSignal(starting: Promise<{ close(): Promise<void> }>, log: Log): void {
  const end = async () => {
    try {
      await (await starting).close()
      process.exit(0)
    } catch (err) {
      log.error({ err }, 'The end did not go well')
      process.exit(1)
    }
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end())
}
