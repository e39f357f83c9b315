import { CliError, EXIT } from './exit.ts'

/** Aborted by Ctrl-C or SIGTERM with a CliError as its reason. */
export const interruption = new AbortController()

/** The first signal stops the work in an orderly way, the second one at once. */
export function watchInterruption(): void {
  for (const [name, exit] of [['SIGINT', EXIT.interrupted], ['SIGTERM', EXIT.terminated]] as const) {
    process.on(name, () => {
      if (interruption.signal.aborted) process.exit(exit)
      interruption.abort(new CliError(exit, 'interrupted', 'Interrupted. Run the same command again to go on.'))
    })
  }
}
