import { crc32 } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { isTokenText, newTokenText } from './token-text.ts'

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

describe('token texts', () => {
  it('are a prefix, random base62, and the CRC32 of both', () => {
    for (let i = 0; i < 200; i++) {
      const text = newTokenText()
      expect(text).toMatch(/^plm_[0-9A-Za-z]{46}$/)
      const checksum = [...text.slice(-6)].reduce((sum, digit) => sum * 62 + ALPHABET.indexOf(digit), 0)
      expect(checksum).toBe(crc32(text.slice(0, -6)))
      expect(isTokenText(text)).toBe(true)
    }
  })

  it('are never the same', () => {
    expect(new Set(Array.from({ length: 1000 }, newTokenText)).size).toBe(1000)
  })

  it('with one wrong character are known for mistyped', () => {
    const text = newTokenText()
    for (let i = 4; i < text.length; i++) {
      const other = text[i] === 'x' ? 'y' : 'x'
      expect(isTokenText(text.slice(0, i) + other + text.slice(i + 1))).toBe(false)
    }
    for (const wrong of ['', 'plm_', text.slice(0, -1), `${text}0`, text.replace('plm_', 'ghp_'), text.toUpperCase()]) expect(isTokenText(wrong)).toBe(false)
  })
})
