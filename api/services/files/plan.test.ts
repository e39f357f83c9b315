import { expect, it } from 'vitest'
import { cutExtents, PLAN_EXTENT_BYTES as MAX } from './plan.ts'

it('cuts large extents into neighbours and drops empty ones', () => {
  expect(cutExtents([
    { blob: 'a', offset: 5, length: 2 * MAX + 3 },
    { blob: 'b', offset: 9, length: 0 },
    { blob: 'c', offset: 0, length: MAX },
  ])).toEqual([
    { blob: 'a', offset: 5, length: MAX },
    { blob: 'a', offset: 5 + MAX, length: MAX },
    { blob: 'a', offset: 5 + 2 * MAX, length: 3 },
    { blob: 'c', offset: 0, length: MAX },
  ])
})
