import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseRange } from './http-range.ts'

const WHOLE = { kind: 'whole' }
const UNSATISFIABLE = { kind: 'unsatisfiable' }
const part = (offset: number, length: number) => ({ kind: 'part', range: { offset, length } })

describe('parseRange', () => {
  it.each([
    ['bytes=0-0', 10, part(0, 1)],
    ['bytes=2-5', 10, part(2, 4)],
    ['bytes=9-9', 10, part(9, 1)],
    ['bytes=0-', 10, part(0, 10)],
    ['bytes=9-', 10, part(9, 1)],
    ['bytes=3-99', 10, part(3, 7)],
    ['bytes=-1', 10, part(9, 1)],
    ['bytes=-10', 10, part(0, 10)],
    ['bytes=-11', 10, part(0, 10)],
    ['bytes=-99999999999999999999999999', 10, part(0, 10)],
    ['bytes=0-99999999999999999999999999', 10, part(0, 10)],
    ['BYTES=1-2', 10, part(1, 2)],
    ['bytes= 1-2 ', 10, part(1, 2)],
    ['bytes=,1-2,', 10, part(1, 2)],
    ['bytes=007-08', 10, part(7, 2)],
    ['bytes=5000000000-5000000001', 6_000_000_000, part(5_000_000_000, 2)],
    ['bytes=10-', 10, UNSATISFIABLE],
    ['bytes=10-11', 10, UNSATISFIABLE],
    ['bytes=99999999999999999999999999-', 10, UNSATISFIABLE],
    ['bytes=-0', 10, UNSATISFIABLE],
    ['bytes=0-', 0, UNSATISFIABLE],
    ['bytes=0-0', 0, UNSATISFIABLE],
    ['bytes=-0', 0, UNSATISFIABLE],
    ['bytes=-5', 0, WHOLE],
    [undefined, 10, WHOLE],
    ['', 10, WHOLE],
    ['bytes', 10, WHOLE],
    ['bytes=', 10, WHOLE],
    ['bytes=-', 10, WHOLE],
    ['bytes=5-2', 10, WHOLE],
    ['bytes=9007199254740993-9007199254740992', 10, WHOLE],
    ['bytes=0-1,3-4', 10, WHOLE],
    ['bytes=0-1, bytes=3-4', 10, WHOLE],
    ['bytes=a-b', 10, WHOLE],
    ['bytes=1.5-2', 10, WHOLE],
    ['bytes=0x1-2', 10, WHOLE],
    ['bytes=+1-2', 10, WHOLE],
    ['bytes=--1', 10, WHOLE],
    ['bytes=1-2-3', 10, WHOLE],
    ['bytes=1 - 2', 10, WHOLE],
    ['bytes 0-1', 10, WHOLE],
    ['items=0-1', 10, WHOLE],
    ['bytes=0-1;q=1', 10, WHOLE],
    ['bytes=١-٢', 10, WHOLE],
  ])('%s of %i bytes', (header, size, expected) => {
    expect(parseRange(header, size)).toEqual(expected)
  })

  it('gives a part that lies in the file, whatever the header', () => {
    const header = fc.oneof(fc.string(), fc.stringMatching(/^bytes=[0-9 ,-]{0,12}$/))
    fc.assert(fc.property(header, fc.nat(1000), (text, size) => {
      const answer = parseRange(text, size)
      if (answer.kind !== 'part') return
      const { offset, length } = answer.range
      expect(offset).toBeGreaterThanOrEqual(0)
      expect(length).toBeGreaterThan(0)
      expect(offset + length).toBeLessThanOrEqual(size)
    }), { numRuns: 1000 })
  })

  it('agrees with slices of a text', () => {
    fc.assert(fc.property(fc.string({ minLength: 1, maxLength: 50, unit: 'grapheme-ascii' }), fc.nat(60), fc.nat(60), (text, first, more) => {
      const cut = (header: string) => {
        const answer = parseRange(header, text.length)
        return answer.kind === 'part' ? text.slice(answer.range.offset, answer.range.offset + answer.range.length) : answer.kind
      }
      const otherwise = first >= text.length ? 'unsatisfiable' : null
      expect(cut(`bytes=${first}-${first + more}`)).toBe(otherwise ?? text.slice(first, first + more + 1))
      expect(cut(`bytes=${first}-`)).toBe(otherwise ?? text.slice(first))
      expect(cut(`bytes=-${more}`)).toBe(more === 0 ? 'unsatisfiable' : text.slice(-more))
    }))
  })
})
