import semver from 'semver'

/** Versions that are named where one was asked for that is not there. */
const NEWEST = 3
/** A name has at most this many characters, as on the Hugging Face Hub. */
export const MAX_NAME_LENGTH = 96
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/
const TAG = /^[A-Za-z][A-Za-z0-9._-]{0,63}$/

/** Words that stand in a path where a name or a version could stand. */
export const RESERVED_WORDS = [
  'api', 'blobs', 'derivations', 'dist-tags', 'docs', 'health', 'jobs', 'lineage', 'merged', 'models', 'new', 'organizations',
  'patches', 'readme', 'resolve', 'runner', 'search', 'settings', 'tokens', 'upload', 'v1', 'versions', 'whoami',
] as const

const VERSION_WORDS = ['dist-tags', 'lineage', 'merged', 'readme', 'upload', 'versions']

export class ReferenceError extends Error {
  readonly code: 'bad-reference' | 'bad-name' | 'bad-version' | 'bad-range' | 'bad-weight' | 'bad-path'

  constructor(code: ReferenceError['code'], message: string) {
    super(message)
    this.name = 'ReferenceError'
    this.code = code
  }
}

/** `org/name` with what may follow: `@selector` (a version, a range or a tag) and `:weight`. */
export interface Reference {
  readonly organization: string
  readonly name: string
  /** What stands after `@`, not yet told apart, or null. */
  readonly selector: string | null
  /** Weight of a patch in a merge; 1 where none is given. */
  readonly weight: number
}

/** Splits `org/name[@selector][:weight]`; the weight is what follows the last colon. Throws ReferenceError. */
export function parseReference(text: string): Reference {
  const colon = text.lastIndexOf(':')
  const head = colon < 0 ? text : text.slice(0, colon)
  const weight = colon < 0 ? 1 : parseWeight(text.slice(colon + 1), text)
  const at = head.indexOf('@')
  const path = at < 0 ? head : head.slice(0, at)
  const selector = at < 0 ? null : head.slice(at + 1).trim()
  const parts = path.split('/')
  if (parts.length !== 2) {
    throw new ReferenceError('bad-reference', `${quote(text)} is not a reference: write organization/name, with @version after it where one is meant.`)
  }
  if (selector === '') throw new ReferenceError('bad-reference', `${quote(text)} has nothing after the @: write a version, a range or a tag there.`)
  if (selector !== null && selector.length > 256) throw new ReferenceError('bad-reference', 'What stands after the @ is longer than 256 characters.')
  const [organization, name] = parts as [string, string]
  checkName(organization, 'organization')
  checkName(name, 'name')
  return { organization, name, selector, weight }
}

/** The reference as text, in the form that parseReference reads; a weight of 1 is left out. */
export function formatReference(reference: { organization: string; name: string; selector?: string | null; weight?: number }): string {
  const { organization, name, selector = null, weight = 1 } = reference
  return `${organization}/${name}${selector === null ? '' : `@${selector}`}${weight === 1 ? '' : `:${weight}`}`
}

function parseWeight(text: string, whole: string): number {
  const weight = Number(text)
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) || !Number.isFinite(weight)) {
    throw new ReferenceError('bad-weight', `${quote(whole)} ends in ${quote(text)}, which is not a number: a weight follows the last colon.`)
  }
  return weight
}

/** Throws ReferenceError unless `name` may name an organization, a model or a patch. */
export function checkName(name: string, what: 'organization' | 'name' = 'name'): void {
  const problem = nameProblem(name)
  if (problem !== null) throw new ReferenceError('bad-name', `The ${what} ${quote(name)} is not allowed: ${problem}.`)
}

export function isName(name: string): boolean {
  return nameProblem(name) === null
}

function nameProblem(name: string): string | null {
  return spellingProblem(name) ?? ((RESERVED_WORDS as readonly string[]).includes(name.toLowerCase()) ? 'the word is reserved' : null)
}

/** A version may be called `v1` or `new`; only the words that stand beside versions in a path are kept. */
function modelVersionProblem(version: string): string | null {
  return spellingProblem(version) ?? (VERSION_WORDS.includes(version.toLowerCase()) ? 'the word is reserved' : null)
}

function spellingProblem(name: string): string | null {
  if (name.length > MAX_NAME_LENGTH) return `it is longer than ${MAX_NAME_LENGTH} characters`
  if (!NAME.test(name)) return 'use letters, digits, ".", "_" and "-", and begin with a letter or digit'
  if (name.includes('..')) return 'it holds ".."'
  if (/(\.git|\.)$/i.test(name)) return 'it ends in "." or ".git"'
  return null
}

/** Model versions are free strings such as `v1` or `2025-06`, spelled like names. */
export function isModelVersion(version: string): boolean {
  return modelVersionProblem(version) === null
}

/** Throws ReferenceError unless `version` may name a model version. */
export function checkModelVersion(version: string): void {
  const problem = modelVersionProblem(version)
  if (problem !== null) throw new ReferenceError('bad-version', `The version ${quote(version)} is not allowed: ${problem}.`)
}

/** Patch versions are strict semver, in its one spelling (no `v`, no leading zeros, no build metadata). */
export function isPatchVersion(version: string): boolean {
  return version.length <= MAX_NAME_LENGTH && semver.valid(version) === version
}

/** Throws ReferenceError unless `version` may name a patch version. */
export function checkPatchVersion(version: string): void {
  if (!isPatchVersion(version)) {
    throw new ReferenceError('bad-version', `The version ${quote(version)} is not a semantic version: write one such as 1.0.0 or 1.1.0-beta.1.`)
  }
}

/** A dist-tag is a word that no version or range can be mistaken for. */
export function isDistTag(tag: string): boolean {
  return TAG.test(tag) && semver.validRange(tag) === null && !(RESERVED_WORDS as readonly string[]).includes(tag.toLowerCase())
}

export interface SelectableVersion {
  readonly version: string
  readonly yanked: boolean
}

export type Selection<T> =
  | { readonly version: T; readonly by: 'version' | 'tag' | 'range' }
  | { readonly version: null; readonly reason: 'no-such-version' | 'no-such-tag' | 'tag-is-yanked' | 'no-match' | 'no-versions' | 'bad-selector'; readonly message: string }

/**
 * The version that `selector` (an exact version, a dist-tag or a semver range; null means the tag `latest`) picks.
 * Ranges take the greatest match, prereleases only as npm does, and never a yanked version; an exact version may be
 * yanked. Without the tag `latest`, the greatest version that is neither a prerelease nor yanked stands in for it.
 */
export function selectVersion<T extends SelectableVersion>(
  selector: string | null | undefined,
  versions: readonly T[],
  distTags: Readonly<Record<string, string>>,
): Selection<T> {
  const wanted = selector ?? 'latest'
  const exact = semver.valid(wanted)
  if (exact !== null) {
    const version = versions.find((candidate) => candidate.version === exact)
    return version ? { version, by: 'version' } : { version: null, reason: 'no-such-version', message: `There is no version ${exact}${newest(versions)}.` }
  }
  if (Object.hasOwn(distTags, wanted)) {
    const version = versions.find((candidate) => candidate.version === distTags[wanted])
    if (version && !version.yanked) return { version, by: 'tag' }
    if (wanted !== 'latest') {
      return { version: null, reason: 'tag-is-yanked', message: `The tag ${quote(wanted)} points at version ${distTags[wanted]}, which has been yanked.` }
    }
  }
  const range = wanted === 'latest' ? '*' : semver.validRange(wanted)
  if (range === null) {
    return isDistTag(wanted)
      ? { version: null, reason: 'no-such-tag', message: `There is no tag ${quote(wanted)}.` }
      : { version: null, reason: 'bad-selector', message: `${quote(wanted)} is neither a version, nor a range, nor a tag.` }
  }
  const live = versions.filter((candidate) => !candidate.yanked)
  const best = semver.maxSatisfying(live.map((candidate) => candidate.version), range)
  const version = live.find((candidate) => candidate.version === best)
  if (version) return { version, by: wanted === 'latest' ? 'tag' : 'range' }
  return live.length === 0
    ? { version: null, reason: 'no-versions', message: 'There is no version that has not been yanked.' }
    : { version: null, reason: 'no-match', message: `No version satisfies ${wanted === 'latest' ? 'the tag "latest", since all are prereleases' : quote(wanted)}${newest(live)}.` }
}

/** What to name instead, to stand before the full stop. */
function newest(versions: readonly SelectableVersion[]): string {
  const live = versions.filter(({ yanked }) => !yanked).map(({ version }) => version).sort(semver.rcompare)
  if (live.length === 0) return ''
  return `; ${live.length === 1 ? 'the only one is' : 'the newest are'} ${live.slice(0, NEWEST).join(', ')}`
}

function quote(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text)
}
