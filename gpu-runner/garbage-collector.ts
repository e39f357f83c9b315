import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collector = (options: { type: 'major' | 'minor' }) => void
let collector: Collector | undefined

/**
 * V8's own collector, called where we know better than V8: after starting, when 100 MB of what was loaded and compiled
 * is garbage, and while bytes stream, when used buffers count for little in V8's own reckoning and would pile up to
 * 100 MB and more (docs/decisions/0003).
 */
export function collectGarbage(kind: 'major' | 'minor'): void {
  collector ??= exposeCollector()
  collector({ type: kind })
}

/** Between two collections of what has been streamed. */
const COLLECT_BYTES = 16 * 1024 * 1024
let streamed = 0

/** To be told of every buffer that is read, received or computed to be passed on once. */
export function countStreamed(bytes: number): void {
  streamed += bytes
  if (streamed < COLLECT_BYTES) return
  streamed = 0
  collectGarbage('minor')
}

function exposeCollector(): Collector {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as Collector
  setFlagsFromString('--no-expose-gc')
  return gc
}
