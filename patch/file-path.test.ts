import fc from 'fast-check'
import { posix } from 'node:path'
import { describe, expect, it } from 'vitest'
import { checkPaths, isSafePath } from './file-path.ts'

describe('isSafePath', () => {
  it.each(['config.json', 'model-00001-of-00003.safetensors', 'sub/folder/a.txt', '.gitattributes', 'ü/模型.bin', 'a b.txt'])('%s is safe', (path) => expect(isSafePath(path)).toBe(true))

  it.each([
    '', '/a', 'a/', 'a//b', '.', '..', '../a', 'a/../b', 'a/./b', 'a\\b', 'C:/a', 'a:b', 'a\0b', 'a\nb', 'a\u007fb', 'a\u200bb', 'a\u202eb', 'e\u0301', '\ud800', 'a?', 'a*', 'con', 'sub/NUL.txt',
    'a.', 'a /b', ' a', 'a'.repeat(256), 'ü'.repeat(128), 'a/'.repeat(512) + 'a',
  ])('%j is not', (path) => expect(isSafePath(path)).toBe(false))

  it('never leaves its folder', () => {
    const segment = fc.constantFrom('a', '.', '..', '', 'b.c', '...', '\\', '..\\')
    fc.assert(fc.property(fc.array(segment, { maxLength: 5 }), (segments) => {
      const path = segments.join('/')
      if (isSafePath(path)) expect(posix.join('/root', path)).toBe(`/root/${path}`)
    }))
  })
})

describe('checkPaths', () => {
  it('refuses names that one folder cannot hold together', () => {
    expect(() => checkPaths(['a', 'b/a', 'b/c'])).not.toThrow()
    for (const paths of [['a', 'a'], ['a', 'A'], ['README.md', 'readme.md'], ['a', 'a/b'], ['A/x', 'a'], ['ok', '../x']]) {
      expect(() => checkPaths(paths)).toThrow(expect.objectContaining({ code: 'bad-path' }))
    }
  })
})
