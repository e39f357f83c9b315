import fc from 'fast-check'
import { expect, it } from 'vitest'
import { MAX_PARTS, PART_BYTES, partsOf } from './parts.ts'

it('parts cover the file exactly, are equal but the last, and never too many', () => {
  fc.assert(
    fc.property(fc.oneof(fc.integer({ min: 0, max: 4 * PART_BYTES }), fc.integer({ min: 0, max: 2 ** 46 })), (size) => {
      const parts = partsOf(size)
      expect(parts.length).toBeGreaterThan(0)
      expect(parts.length).toBeLessThanOrEqual(MAX_PARTS)
      expect(parts.map((part) => part.number)).toEqual(parts.map((_, i) => i + 1))
      expect(parts.reduce((end, part) => (part.offset === end ? end + part.length : NaN), 0)).toBe(size)
      expect(new Set(parts.slice(0, -1).map((part) => part.length)).size).toBeLessThanOrEqual(1)
      if (parts.length > 1) expect(parts.at(-1)!.length).toBeGreaterThan(0)
    }),
    { numRuns: 50 },
  )
  expect(partsOf(PART_BYTES)).toHaveLength(1)
  expect(partsOf(PART_BYTES + 1)).toHaveLength(2)
  expect(partsOf(0)).toEqual([{ number: 1, offset: 0, length: 0 }])
})
