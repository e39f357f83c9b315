/** What stands in the place of a secret. */
const REDACTED = '***'
/** Shorter ones would take half of every log with them; as a password in a URL they are found by their place. */
const MIN_EXACT_LENGTH = 4

const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // Tokens of this registry, and JSON web tokens.
  [/plm_[0-9A-Za-z]+/g, `plm_${REDACTED}`],
  [/\beyJ[\w-]+\.[\w-]+\.[\w-]*/g, REDACTED],
  [/\b(bearer|basic)\s+[^\s"',;\\]+/gi, `$1 ${REDACTED}`],
  // The password of a URL; the user stays.
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/?#"@\\]*):[^\s"\\/]*@/gi, `$1:${REDACTED}@`],
  // Values in a query: signatures among them.
  [/([?&][\w.~%-]+)=[^&\s"'\\)\]}]+/g, `$1=${REDACTED}`],
]

/** Takes secrets out of text that goes to a log: those given, and whatever has the form of one. `text` may be JSON. */
export function createRedactor(secrets: readonly string[]): (text: string) => string {
  const exact = [...new Set(secrets.filter((secret) => secret.length >= MIN_EXACT_LENGTH).flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1)]))]
    // The longest first: one may be part of another.
    .sort((a, b) => b.length - a.length)
  return (text) => PATTERNS.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), exact.reduce((result, secret) => result.replaceAll(secret, REDACTED), text))
}

/** A URL without its password, and without what its query says of one. */
export function redactUrl(text: string): string {
  const url = new URL(text)
  if (url.password !== '') url.password = REDACTED
  for (const name of url.searchParams.keys()) if (/pass|secret|key|token/i.test(name)) url.searchParams.set(name, REDACTED)
  return url.href
}
