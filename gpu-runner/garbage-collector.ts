import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * V8's own collector, called at the two moments at which we know better than V8: after starting, when 100 MB of
 * what was loaded and compiled is garbage, and while streaming, when used buffers count for little in V8's own
 * reckoning and would pile up to 100 MB and more (docs/decisions/0003).
 */
export function collectGarbage(kind: 'major' | 'minor'): void {
  collector({ type: kind })
}

/** Between two collections of what has been read and sent. */
const COLLECT_BYTES = 16 * 1024 * 1024
let streamed = 0

/** To be told of every buffer that is read or computed to be sent once. */
export function countStreamed(bytes: number): void {
  streamed += bytes
  if (streamed < COLLECT_BYTES) return
  streamed = 0
  collectGarbage('minor')
}

const collector = exposeCollector()

function exposeCollector(): (options: { type: 'major' | 'minor' }) => void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as (options: { type: 'major' | 'minor' }) => void
  setFlagsFromString('--no-expose-gc')
  return gc
}
