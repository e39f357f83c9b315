import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatReference, isDistTag, isModelVersion, isName, isPatchVersion, parseReference, selectVersion } from './reference.ts'

describe('parseReference', () => {
  it.each([
    ['acme/triage', { organization: 'acme', name: 'triage', selector: null, weight: 1 }],
    ['mistralai/Mistral-7B-v0.1', { organization: 'mistralai', name: 'Mistral-7B-v0.1', selector: null, weight: 1 }],
    ['acme/triage@1.2.0', { organization: 'acme', name: 'triage', selector: '1.2.0', weight: 1 }],
    ['acme/triage@^1.2.0:0.5', { organization: 'acme', name: 'triage', selector: '^1.2.0', weight: 0.5 }],
    ['acme/triage@>=1 <2', { organization: 'acme', name: 'triage', selector: '>=1 <2', weight: 1 }],
    ['acme/triage:-2', { organization: 'acme', name: 'triage', selector: null, weight: -2 }],
    ['acme/triage@a:b:0.5', { organization: 'acme', name: 'triage', selector: 'a:b', weight: 0.5 }],
    ['acme/triage@beta:1e-1', { organization: 'acme', name: 'triage', selector: 'beta', weight: 0.1 }],
  ])('%s', (text, expected) => {
    expect(parseReference(text)).toEqual(expected)
  })

  it.each([
    ['acme', 'bad-reference'], ['', 'bad-reference'], ['a/b/c', 'bad-reference'], ['acme/triage@', 'bad-reference'], ['acme/triage@ ', 'bad-reference'],
    [`acme/triage@${'1'.repeat(300)}`, 'bad-reference'],
    ['acme/', 'bad-name'], ['/triage', 'bad-name'], ['acme/.triage', 'bad-name'], ['acme/a..b', 'bad-name'], ['acme/a b', 'bad-name'], ['acme/ü', 'bad-name'],
    ['acme/%2e%2e', 'bad-name'], ['acme/a.git', 'bad-name'], ['acme/a.', 'bad-name'], ['acme/DOCS', 'bad-name'], ['v1/triage', 'bad-name'], [`acme/${'a'.repeat(97)}`, 'bad-name'],
    ['acme/triage:', 'bad-weight'], ['acme/triage:x', 'bad-weight'], ['acme/triage:0x10', 'bad-weight'], ['acme/triage:NaN', 'bad-weight'], ['acme/triage:1e999', 'bad-weight'],
  ])('%j is %s', (text, code) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({ name: 'ReferenceError', code }))
  })

  it('reads what formatReference writes', () => {
    const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,20}$/).filter(isName)
    const selector = fc.option(fc.constantFrom('1.0.0', '^1.2', 'latest', '>=1 <2 || 3.x'))
    fc.assert(fc.property(name, name, selector, fc.double({ noNaN: true, min: -100, max: 100 }).map((value) => value + 0), (organization, one, chosen, weight) => {
      expect(parseReference(formatReference({ organization, name: one, selector: chosen, weight }))).toEqual({ organization, name: one, selector: chosen, weight })
    }))
  })
})

describe('versions', () => {
  it.each(['1.0.0', '0.0.1-beta.1'])('%s is a patch version', (version) => expect(isPatchVersion(version)).toBe(true))
  it.each(['1.0', 'v1.0.0', '01.0.0', '1.0.0+build', ' 1.0.0', 'latest', ''])('%j is none', (version) => expect(isPatchVersion(version)).toBe(false))
  it.each(['v0.1', 'v1', 'new', '2025-06', '1.0.0', 'main'])('%s is a model version', (version) => expect(isModelVersion(version)).toBe(true))
  it.each(['upload', 'dist-tags', 'Readme', 'merged', '../x', 'a/b', '', 'a@b', 'a:b'])('%j is none', (version) => expect(isModelVersion(version)).toBe(false))
  it.each(['latest', 'beta', 'stable.2'])('%s is a dist-tag', (tag) => expect(isDistTag(tag)).toBe(true))
  it.each(['1.0.0', 'v1', 'x', '*', '', 'a b', 'merged'])('%j is none', (tag) => expect(isDistTag(tag)).toBe(false))
})

describe('selectVersion', () => {
  const versions = [['1.0.0', false], ['1.1.0', false], ['1.2.0', true], ['2.0.0-beta.1', false], ['2.0.0-beta.2', false]].map(([version, yanked]) => ({ version: String(version), yanked: yanked === true }))
  const tags = { latest: '1.1.0', beta: '2.0.0-beta.2', broken: '1.2.0' }

  it.each([
    [undefined, '1.1.0'], [null, '1.1.0'], ['latest', '1.1.0'], ['beta', '2.0.0-beta.2'],
    ['1.2.0', '1.2.0'], ['=1.0.0', '1.0.0'], ['v1.0.0', '1.0.0'],
    ['^1.0.0', '1.1.0'], ['*', '1.1.0'], ['1', '1.1.0'], ['~1.0', '1.0.0'], ['>=1 <3', '1.1.0'], ['^2.0.0-beta.1', '2.0.0-beta.2'],
  ])('%s picks %s', (selector, version) => {
    expect(selectVersion(selector, versions, tags).version?.version).toBe(version)
  })

  it.each([
    ['3.0.0', 'no-such-version'], ['^3.0.0', 'no-match'], ['1.2.x', 'no-match'], ['^2.0.0', 'no-match'], ['nightly', 'no-such-tag'], ['broken', 'tag-is-yanked'], ['not a range', 'bad-selector'],
    ['__proto__', 'bad-selector'],
  ])('%s picks nothing: %s', (selector, reason) => {
    expect(selectVersion(selector, versions, tags)).toMatchObject({ version: null, reason, message: expect.any(String) })
  })

  it('names the newest versions where nothing is picked, and none that was yanked', () => {
    const messageOf = (selector: string | null, of = versions) => {
      const selection = selectVersion(selector, of, {})
      return selection.version === null ? selection.message : null
    }
    expect(messageOf('^3')).toBe('No version satisfies "^3"; the newest are 2.0.0-beta.2, 2.0.0-beta.1, 1.1.0.')
    expect(messageOf('3.0.0')).toBe('There is no version 3.0.0; the newest are 2.0.0-beta.2, 2.0.0-beta.1, 1.1.0.')
    expect(messageOf(null, versions.slice(-1))).toBe('No version satisfies the tag "latest", since all are prereleases; the only one is 2.0.0-beta.2.')
    expect(messageOf('1.0.0', [])).toBe('There is no version 1.0.0.')
  })

  it('falls back for latest to the greatest release that is not yanked', () => {
    expect(selectVersion(null, versions, { latest: '1.2.0' }).version?.version).toBe('1.1.0')
    expect(selectVersion(null, versions, {}).version?.version).toBe('1.1.0')
    expect(selectVersion(null, versions.slice(3), {})).toMatchObject({ version: null, reason: 'no-match' })
    expect(selectVersion(null, [], {})).toMatchObject({ version: null, reason: 'no-versions' })
  })
})
