import { expect, it } from 'vitest'
import { readBytes, readDuration } from './operator.ts'

it.each([['24h', 86400], ['1.5d', 129600], ['90s', 90], ['15m', 900], ['0', 0]])('%s is %d seconds', (text, seconds) => expect(readDuration(text)).toBe(seconds))
it.each(['soon', '24', '-1h', '1 h', '', 'h'])('%j is no time', (text) => expect(() => readDuration(text)).toThrow('such as 24h'))
it.each([['50M', 50e6], ['1.5G', 1.5e9], ['800', 800], ['2k', 2000]])('%s is %d bytes', (text, bytes) => expect(readBytes(text)).toBe(bytes))
it.each(['fast', '0', '50m', '-1M', ''])('%j is no number of bytes', (text) => expect(() => readBytes(text)).toThrow('such as 50M'))
