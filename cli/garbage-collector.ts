import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Between two collections of what has been received and written. */
const COLLECT_BYTES = 16 << 20
let receivedSinceCollection = 0
let collect: ((options: { type: 'minor' }) => void) | undefined

/** Counts received bytes, and now and then collects their buffers: V8 by itself lets 100 MB and more pile up. */
export function countReceived(bytes: number): void {
  receivedSinceCollection += bytes
  if (receivedSinceCollection < COLLECT_BYTES) return
  receivedSinceCollection = 0
  if (collect === undefined) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as (options: { type: 'minor' }) => void
  }
  collect({ type: 'minor' })
}
