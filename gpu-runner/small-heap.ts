import { setFlagsFromString } from 'node:v8'
import { tameAllocator } from './allocator.ts'

/**
 * To be imported before all else by a process that runs beside larger ones. What such a process keeps is little, but by
 * default V8 lets several times as much garbage pile up before it looks: after an hour of small jobs, or one large one, 100 MB and more.
 */
setFlagsFromString('--optimize-for-size')
setFlagsFromString('--semi-space-growth-factor=1')
tameAllocator()
