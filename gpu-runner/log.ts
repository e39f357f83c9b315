import { destination, pino, type Logger } from 'pino'

export type Log = Pick<Logger, 'info' | 'warn' | 'error'>

/** JSON lines on standard error. Callers never pass it tokens, specs or signed requests. */
export function openLog(runner: string): Logger {
  return pino({ base: { runner } }, destination({ dest: 2, sync: true }))
}
