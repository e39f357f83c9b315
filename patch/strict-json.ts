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

/** Deeper than any config nests; `JSON.parse` itself builds any depth, at many times the size of the text. */
const MAX_DEPTH = 64

/**
 * `JSON.parse` that refuses duplicate keys, which it would silently resolve to the last one, and more than 64 levels.
 * A key `__proto__` is an own property like any other; look keys up with `Object.hasOwn`. Throws SyntaxError or DuplicateKeyError.
 */
export function parseStrictJson(text: string): JsonValue {
  refuseDepth(text)
  const value = JSON.parse(text) as JsonValue
  refuseDuplicates(text)
  return value
}

/** The text may be no JSON at all: only strings and brackets are looked at. Linear in the text. */
function refuseDepth(text: string): void {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x7b || code === 0x5b) {
      if (++depth > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH} levels`)
    } else if (code === 0x7d || code === 0x5d) {
      depth--
    } else if (code === 0x22) {
      for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++
    }
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
