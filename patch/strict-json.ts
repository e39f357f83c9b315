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

/**
 * `JSON.parse` that refuses duplicate keys, which it would silently resolve to the last one.
 * A key `__proto__` is an own property like any other; look keys up with `Object.hasOwn`. Throws SyntaxError or DuplicateKeyError.
 */
export function parseStrictJson(text: string): JsonValue {
  const value = JSON.parse(text) as JsonValue
  refuseDuplicates(text)
  return value
}

/**
 * Walks text that JSON.parse has accepted, so only the structure matters: strings, braces and brackets.
 * Linear in the text.
 */
function refuseDuplicates(text: string): void {
  // One entry per open bracket: the keys seen in an object, null for an array.
  const open: (Set<string> | null)[] = []
  let expectKey = false
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
        open.push(new Set())
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
        expectKey = open.at(-1) != null
        break
      case 0x22: { // "
        const start = i
        for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++
        if (!expectKey) break
        const key = JSON.parse(text.slice(start, i + 1)) as string
        const keys = open.at(-1)!
        if (keys.has(key)) throw new DuplicateKeyError(key)
        keys.add(key)
        expectKey = false
        break
      }
    }
  }
}
