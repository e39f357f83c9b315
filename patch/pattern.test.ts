import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fullMatcher, PatternError, patternWeight, suffixMatcher } from './pattern.ts'

describe('suffixMatcher', () => {
  // Answers of Python 3.11's re.match(rf"(.*\.)?({key})$", name).
  it.each([
    ['q_proj', 'model.layers.0.q_proj', true],
    ['q_proj', 'q_proj', true],
    ['q_proj', 'model.xq_proj', false],
    ['proj', 'q_proj', false],
    ['layers.0.q_proj', 'model.layers.0.q_proj', true],
    ['layers.1.q_proj', 'model.layers.11.q_proj', false],
    ['layers.0', 'model.layersX0', true],
    ['^model.layers.0.q_proj', 'model.layers.0.q_proj', true],
    ['^layers.0.q_proj', 'model.layers.0.q_proj', false],
    ['q_proj$', 'model.q_proj', true],
    ['layers.(0|1).q_proj', 'model.layers.1.q_proj', true],
    ['layers.(0|1).q_proj', 'model.layers.2.q_proj', false],
    ['a|b', 'x.b', true],
    ['a|b', 'x.ab', false],
    ['.*q_proj', 'model.xq_proj', true],
    ['layers\\.\\d+\\.q', 'm.layers.12.q', true],
    ['layers\\.\\d{2,}\\.q', 'm.layers.1.q', false],
    ['[kq]_proj', 'm.k_proj', true],
    ['[^kq]_proj', 'm.k_proj', false],
    ['\\.q', 'x.q', false],
    ['|a', 'x.', true],
    ['(?:a.)?b', 'c.a.b', true],
    ['a*?b', 'x.aab', true],
  ])('%s fits %s: %s', (key, name, expected) => {
    expect(suffixMatcher(key)(name)).toBe(expected)
  })

  it('reads a literal key as the general way does', () => {
    const part = fc.stringMatching(/^[ab.0]{0,6}$/)
    fc.assert(fc.property(part.filter((key) => key !== ''), part, (key, name) => suffixMatcher(key)(name) === new RegExp(`^(.*\\.)?(${key})$`).test(name)))
  })
})

describe('what means another thing in Python, or cannot be bounded', () => {
  it.each(['a)(b', '(a', 'a)', '(?=a)', '(?!a)', '(?<=a)', '(?P<n>a)', '(?P=n)', '(?i)a', '(?>a)', '(a)\\1', 'a**', 'a*+', 'a++', 'a{2}{3}', 'x{,3}', 'a{9999}',
    '(a{99}){99}', '[]a]', '[[:alpha:]]', '[a&&b]', '[a', '*a', '|*', '(*a)', '\\Aa', '\\Za', '\\ba', '\\pLa', 'a\\', 'é', 'a\nb', `${'a'.repeat(1001)}*`,
  ])('%s is refused', (key) => {
    expect(() => suffixMatcher(key)).toThrow(PatternError)
  })

  it('never hangs, whatever the pattern', () => {
    const piece = fc.constantFrom('a', '.', '(', ')', '(?:', '*', '+', '?', '|', '[ab]', '{1,9}', '\\d', '$', '^')
    const name = 'a'.repeat(300)
    fc.assert(fc.property(fc.array(piece, { minLength: 1, maxLength: 12 }), (pieces) => {
      try {
        suffixMatcher(pieces.join(''))(name)
      } catch (error) {
        expect(error).toBeInstanceOf(PatternError)
      }
    }), { numRuns: 300 })
  })
})

describe('patternWeight', () => {
  it.each([['q_proj', 6], ['(q|v)_proj', 10], ['a{3}', 12], ['(a{2,30}){4,}', 13 * 30 * 4], ['a{0}', 4], ['a\\{3\\}', 6]])('of %s is %i', (pattern, weight) => {
    expect(patternWeight(pattern)).toBe(weight)
  })

  it('bounds what is compiled', () => {
    expect(() => fullMatcher('a{999}'.repeat(140))).toThrow(/repeats too much/)
    expect(() => suffixMatcher(`(${'a'.repeat(900)}){999}`)).toThrow(/repeats too much/)
    expect(fullMatcher('.*layers\\.\\d{1,3}\\.(q|v)_proj')('m.layers.12.q_proj')).toBe(true)
  })
})

describe('fullMatcher', () => {
  it('wants the whole name, through every branch', () => {
    expect(fullMatcher('.*\\.(q|v)_proj')('m.v_proj')).toBe(true)
    expect(fullMatcher('a|ab')('ab')).toBe(true)
    expect(fullMatcher('a|b')('ba')).toBe(false)
    expect(fullMatcher('q_proj')('m.q_proj')).toBe(false)
  })
})
