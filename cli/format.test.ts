import { expect, test } from 'vitest'
import { formatBytes, formatFields, formatTable, printable } from './format.ts'

test('bytes have three significant digits, and never four before the point', () => {
  expect([0, 1, 999, 1000, 9994, 9996, 999_949, 999_950, 2_200_000_000].map(formatBytes)).toEqual(['0 bytes', '1 byte', '999 bytes', '1.00 kB', '9.99 kB', '10.0 kB', '999.9 kB', '1.00 MB', '2.20 GB'])
})

test('tables align, and say when they are empty', () => {
  expect(formatTable(['A', 'LONG'], [['x', null], ['longer', 'y']])).toBe('A       LONG\nx       -\nlonger  y')
  expect(formatTable(['A'], [])).toBe('Nothing found.')
})

test('fields without a value are left out', () => {
  expect(formatFields([['a', 1], ['bc', null], ['d', ''], ['e', undefined]])).toBe('a  1')
})

test('what strangers wrote cannot steer the terminal', () => {
  expect(printable('a\u001b[2Jb\u202ec\r\n')).toBe('a [2Jb c  ')
  expect(formatTable(['A'], [['\u001b]0;title\u0007']])).not.toContain('\u001b')
})
