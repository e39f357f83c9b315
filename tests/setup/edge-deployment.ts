import { buildEdge } from './edge-bundle.ts'
import { DEV_BUNDLE } from './edge.ts'

/** Once for a run of vitest: the bundle that every test starts. */
export async function setup(): Promise<void> {
  await buildEdge('dev', DEV_BUNDLE)
}
