import { expect, it } from 'vitest'
import { isKeepable, keepable, unkeepablePath } from './keepable-text.ts'

it('knows what a database keeps', () => {
  expect(['', 'a\n\u0001', '\u{1f600}', '\ufffd', 'a\0', '\ud83d', '\ude00\ud83d'].map(isKeepable)).toEqual([true, true, true, true, false, false, false])
  expect(['a\0b', '\ud83dx', '\u{1f600}'].map(keepable)).toEqual(['a\ufffdb', '\ufffdx', '\u{1f600}'])
})

it('says where', () => {
  expect(unkeepablePath({ a: [1, null, { b: 'x', c: ['y', 'z\0'] }] })).toEqual(['a', 2, 'c', 1])
  expect(unkeepablePath({ a: { 'b\0': 1 } })).toEqual(['a', 'b\ufffd'])
  expect(unkeepablePath('\ud800')).toEqual([])
  expect(unkeepablePath({ a: [true, 1.5, 'x', {}] })).toBeNull()
})
