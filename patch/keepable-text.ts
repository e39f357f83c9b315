/** Whether a database keeps the text: PostgreSQL has no U+0000 in any text, and in JSON no half of a surrogate pair. */
export function isKeepable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

/** The text with U+FFFD, the replacement character, for what could not be kept. */
export function keepable(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\ufffd')
}

/** Where in a value of JSON a text or key cannot be kept: its keys and indices, down to it. Null where all can. */
export function unkeepablePath(value: unknown): (string | number)[] | null {
  if (typeof value === 'string') return isKeepable(value) ? null : []
  if (typeof value !== 'object' || value === null) return null
  const isList = Array.isArray(value)
  for (const [key, part] of Object.entries(value)) {
    if (!isList && !isKeepable(key)) return [keepable(key)]
    const path = unkeepablePath(part)
    if (path !== null) return [isList ? Number(key) : key, ...path]
  }
  return null
}
