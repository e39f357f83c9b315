import type { Log } from './ports/log.ts'

/**
 * Runs `work` now and then again and again, never twice at once; `what` names it where it fails. Returns how to stop it,
 * which fires its signal, and wait for it.
 */
export function repeat(what: string, work: (signal: AbortSignal) => Promise<unknown>, milliseconds: number, log: Log): () => Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const stopped = new AbortController()
  let running = Promise.resolve()
  const turn = () => {
    running = work(stopped.signal)
      .catch((err: unknown) => void (stopped.signal.aborted || log.error({ err }, `The ${what} failed; it will be tried again`)))
      .then(() => void (stopped.signal.aborted || (timer = setTimeout(turn, milliseconds))))
  }
  turn()
  return async () => {
    stopped.abort()
    clearTimeout(timer)
    await running
  }
}
