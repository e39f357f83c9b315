import { RE2JS } from 're2js'

/** Longest regular expression that is read from a config. */
export const MAX_PATTERN_LENGTH = 1000

/** Largest weight of one expression: its compilation takes milliseconds. */
const MAX_WEIGHT = 10_000

/** Most that expressions weigh times the characters of the names that they are matched with: a second at the very worst. */
export const MAX_PATTERN_WORK = 50_000_000

/** Decides whether a module's name fits a pattern. */
export type NameMatcher = (name: string) => boolean

export class PatternError extends Error {
  readonly pattern: string

  constructor(pattern: string, problem: string) {
    super(`the pattern ${JSON.stringify(pattern.slice(0, 200))} ${problem}`)
    this.name = 'PatternError'
    this.pattern = pattern
  }
}

/**
 * Python's `re.match(rf"(.*\.)?({key})$", name)`, by which PEFT looks keys of rank_pattern and alpha_pattern up.
 * Throws PatternError for a key outside the subset that means the same in Python and here.
 */
export function suffixMatcher(key: string): NameMatcher {
  if (isLiteral(key)) return (name) => endsWithLiteral(name, key)
  return compile(key, `(?:.*\\.)?(?:${key})$`)
}

/** Python's `re.fullmatch(pattern, name)`, by which PEFT reads target_modules where it is a string. Throws PatternError. */
export function fullMatcher(pattern: string): NameMatcher {
  return compile(pattern, `(?:${pattern})$`)
}

/** Whether a key has no operators but `.`, which stands for any character: so has nearly every key of a real config. */
export function isLiteral(key: string): boolean {
  return /^[A-Za-z0-9_.-]+$/.test(key)
}

function endsWithLiteral(name: string, key: string): boolean {
  const start = name.length - key.length
  if (start < 0 || (start > 0 && name[start - 1] !== '.')) return false
  for (let at = 0; at < key.length; at += 1) {
    if (key[at] !== '.' && key[at] !== name[start + at]) return false
  }
  return true
}

/**
 * What a pattern costs for each character of a name, at most: its characters, each as often as quantifiers may repeat it.
 * RE2 follows all of them at once.
 */
export function patternWeight(pattern: string): number {
  return [...pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)].reduce((weight, [, least, most]) => weight * Math.max(1, Number(least), Number(most ?? 0)), pattern.length)
}

/** RE2 takes time linear in the name whatever the pattern; `refuseForeign` has left out where it differs from Python. */
function compile(pattern: string, anchored: string): NameMatcher {
  refuseForeign(pattern)
  let expression: RE2JS
  try {
    expression = RE2JS.compile(`^(?:${anchored})`)
  } catch (error) {
    throw new PatternError(pattern, `is not a regular expression that can be used here: ${error instanceof Error ? error.message : String(error)}`)
  }
  return (name) => expression.matcher(name).find()
}

/**
 * Throws PatternError unless the pattern uses only literals, `.`, `^`, `$`, escaped punctuation, `\d \w \s` and their
 * opposites, simple classes, groups, `|` and the quantifiers `* + ? {n} {n,} {n,m}`. Everything else (look-around,
 * back-references, flags, possessive quantifiers, `{,n}`, sets within classes) is missing here or means another thing.
 */
function refuseForeign(pattern: string): void {
  if (pattern.length > MAX_PATTERN_LENGTH) throw new PatternError(pattern, `is longer than ${MAX_PATTERN_LENGTH} characters`)
  if (!/^[\x20-\x7e]*$/.test(pattern)) throw new PatternError(pattern, 'holds a character outside ASCII')
  if (patternWeight(pattern) > MAX_WEIGHT) throw new PatternError(pattern, 'repeats too much, too often')
  let depth = 0
  for (let at = 0; at < pattern.length; ) {
    const token = TOKEN.exec(pattern.slice(at))?.[0]
    if (token === undefined) throw new PatternError(pattern, `uses an operator at position ${at} that is not supported`)
    if (token.startsWith('(')) depth += 1
    else if (token.startsWith(')')) depth -= 1
    // `a)(b` is valid once PEFT has put it in parentheses, with another meaning.
    if (depth < 0) throw new PatternError(pattern, 'has unbalanced parentheses')
    at += token.length
  }
  if (depth !== 0) throw new PatternError(pattern, 'has unbalanced parentheses')
}

const QUANTIFIER = String.raw`(?:[*+?]|\{\d{1,3}(?:,\d{0,3})?\})\??(?![*+?{])`
const CLASS = String.raw`\[\^?(?:\\[dDwWsS]|\\[^A-Za-z0-9]|[^\]\[\\&~|-])(?:\\[dDwWsS]|\\[^A-Za-z0-9]|[^\]\[\\&~|])*\]`
const ATOM = String.raw`\\[dDwWsS]|\\[^A-Za-z0-9]|${CLASS}|[^\\()[\]{}|*+?^$]`
/** One atom with its quantifier, or one operator. A quantifier may also follow the parenthesis that closes a group. */
const TOKEN = new RegExp(String.raw`^(?:(?:${ATOM})(?:${QUANTIFIER})?|\)(?:${QUANTIFIER})?|\((?:\?:)?(?![?*+{])|[|^$](?![*+?{]))`)
