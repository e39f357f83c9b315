import { CliError, EXIT } from './exit.ts'

/** Aborted by Ctrl-C or SIGTERM with a CliError as its reason. */
export const interruption = new AbortController()

/** One Ctrl-C may come twice: from the terminal, and from portllm.js, which got it from the terminal too. */
const ECHO_MS = 200

/** The first signal stops the work in an orderly way, the second one at once. */
export function watchInterruption(): void {
  let first = 0
  for (const [name, exit] of [['SIGINT', EXIT.interrupted], ['SIGTERM', EXIT.terminated]] as const) {
    process.on(name, () => {
      if (interruption.signal.aborted) {
        if (performance.now() - first > ECHO_MS) process.exit(exit)
        return
      }
      first = performance.now()
      interruption.abort(new CliError(exit, 'interrupted', 'Interrupted. Run the same command again to go on.'))
    })
  }
}
