/** JSON text that JSON.parse would accept but that says one thing twice. */
export class DuplicateKeyError extends Error {
  readonly key: string
  constructor(key: string) {
    super(`the key ${JSON.stringify(key)} appears twice in one object`)
    this.name = 'DuplicateKeyError'
    this.key = key
  }
}

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue }

/** Deeper than any config nests. */
const MAX_DEPTH = 64
/** More than any file of a model has: an index of shards has one for each tensor. */
const MAX_VALUES = 300_000

/**
 * `JSON.parse` that refuses duplicate keys, which it would silently resolve to the last one, and what would take many
 * times the memory of its text: more than 64 levels, or more than 300,000 values.
 * A key `__proto__` is an own property like any other; look keys up with `Object.hasOwn`. Throws SyntaxError or DuplicateKeyError.
 */
export function parseStrictJson(text: string): JsonValue {
  refuseBombs(text)
  const value = JSON.parse(text) as JsonValue
  refuseDuplicates(text)
  return value
}

/** The text may be no JSON at all: only strings, brackets and commas are looked at. Linear in the text. */
function refuseBombs(text: string): void {
  let depth = 0
  let values = 0
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
      case 0x5b: // [
        if (++depth > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH} levels`)
        values++
        break
      case 0x7d: // }
      case 0x5d: // ]
        depth--
        break
      case 0x2c: // ,
        values++
        break
      case 0x22: // "
        for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++
    }
    if (values > MAX_VALUES) throw new SyntaxError(`more than ${MAX_VALUES} values`)
  }
}

/**
 * Walks text that JSON.parse has accepted, so only the structure matters: strings, braces and brackets.
 * Linear in the text.
 */
function refuseDuplicates(text: string): void {
  // One entry per open bracket: the keys seen in an object, undefined before the first one; null for an array.
  const open: (Set<string> | undefined | null)[] = []
  let expectKey = false
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
        open.push(undefined)
        expectKey = true
        break
      case 0x5b: // [
        open.push(null)
        expectKey = false
        break
      case 0x7d: // }
      case 0x5d: // ]
        open.pop()
        expectKey = false
        break
      case 0x2c: // ,
        expectKey = open.length > 0 && open.at(-1) !== null
        break
      case 0x22: { // "
        const start = i
        for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++
        if (!expectKey) break
        const key = JSON.parse(text.slice(start, i + 1)) as string
        const keys = (open[open.length - 1] ??= new Set())
        if (keys.has(key)) throw new DuplicateKeyError(key)
        keys.add(key)
        expectKey = false
        break
      }
    }
  }
}
