/** Compiles the fuzz targets: a step of `npm test`. */
import { buildFuzzTarget, TARGETS } from './fuzz-target.ts'

for (const target of [...TARGETS, 'broken' as const]) await buildFuzzTarget(target)
