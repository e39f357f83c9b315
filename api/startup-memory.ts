import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * Collects what starting left behind. Loading and compiling the modules fills 100 MB and more that V8 keeps for a
 * growing heap; collected once here, the server's peak under load is that much lower (docs/decisions/0003).
 */
export function releaseStartupMemory(): void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  setFlagsFromString('--no-expose-gc')
  collect()
}
