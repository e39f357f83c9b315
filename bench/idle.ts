/** Loads what merge-run.ts loads, and ends: the memory of Node itself, for bench/merge.ts. */
import { loadCore } from '../gpu-runner/core/core.ts'
import { planMerge } from './merge-plan.ts'

await loadCore()
if (typeof planMerge !== 'function') throw new Error('nothing was loaded')
