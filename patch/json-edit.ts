/** JSON text that cannot be edited in place: not an object where one is needed. */
export class JsonEditError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'JsonEditError'
  }
}

/**
 * `text` with the member at `path` set to `value` (JSON text), and every other byte as it was: numbers keep their
 * spelling, keys their order. A member that is not there is added as the first of its object. The text must be JSON that
 * parseStrictJson accepts. Throws JsonEditError where a part of the path before the last is no object.
 */
export function setJsonMember(text: string, path: readonly string[], value: string): string {
  let start = skipSpace(text, 0)
  for (const [index, key] of path.entries()) {
    if (text[start] !== '{') throw new JsonEditError(`${path.slice(0, index).join('.') || 'the whole'} is no object`)
    const found = findMember(text, start, key)
    if (found === null) {
      if (index < path.length - 1) throw new JsonEditError(`there is no ${path.slice(0, index + 1).join('.')}`)
      return addMember(text, start, key, value)
    }
    start = found
  }
  return `${text.slice(0, start)}${value}${text.slice(endOfValue(text, start))}`
}

/** Where the value of a member of the object at `start` begins, or null. */
function findMember(text: string, start: number, key: string): number | null {
  for (let at = skipSpace(text, start + 1); text[at] === '"'; ) {
    const end = endOfString(text, at)
    const value = skipSpace(text, skipSpace(text, end) + 1)
    if (JSON.parse(text.slice(at, end)) === key) return value
    at = skipSpace(text, endOfValue(text, value))
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
  return null
}

/** Spaced as the member that comes after it. */
function addMember(text: string, start: number, key: string, value: string): string {
  const next = skipSpace(text, start + 1)
  const space = text.slice(start + 1, next)
  const member = `${JSON.stringify(key)}: ${value}`
  return `${text.slice(0, start + 1)}${text[next] === '}' ? member : `${space}${member},${space === '' ? ' ' : ''}`}${text.slice(start + 1)}`
}

function skipSpace(text: string, at: number): number {
  while (at < text.length && ' \t\n\r'.includes(text[at]!)) at += 1
  return at
}

function endOfString(text: string, at: number): number {
  for (at += 1; text[at] !== '"'; at += 1) if (text[at] === '\\') at += 1
  return at + 1
}

function endOfValue(text: string, at: number): number {
  if (text[at] === '"') return endOfString(text, at)
  if (text[at] !== '{' && text[at] !== '[') {
    while (at < text.length && !' \t\n\r,]}'.includes(text[at]!)) at += 1
    return at
  }
  for (let depth = 0; ; at += 1) {
    if (text[at] === '"') at = endOfString(text, at) - 1
    else if (text[at] === '{' || text[at] === '[') depth += 1
    else if ((text[at] === '}' || text[at] === ']') && (depth -= 1) === 0) return at + 1
  }
}
