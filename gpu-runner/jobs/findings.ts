import type { Finding } from '../protocol.ts'

/** Reasons of one code that are listed one by one; the rest is counted. */
export const LISTED_FINDINGS = 20

/** At most LISTED_FINDINGS of each code, then one that counts the others. */
export function limitFindings(findings: readonly Finding[]): Finding[] {
  const counts = new Map<string, number>()
  const listed = findings.filter(({ code }) => {
    const seen = (counts.get(code) ?? 0) + 1
    counts.set(code, seen)
    return seen <= LISTED_FINDINGS
  })
  for (const [code, total] of counts) {
    if (total > LISTED_FINDINGS) listed.push({ code, message: `${total - LISTED_FINDINGS} more like the ${LISTED_FINDINGS} listed (${code}).` })
  }
  return listed
}
