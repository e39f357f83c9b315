import type { Finding } from '../protocol.ts'

/** Reasons of one code that are listed one by one; the rest is counted. */
const LISTED_FINDINGS = 20

/** What is wrong with an upload. However much that is, only so much of it is kept. */
export class Findings {
  readonly #listed: Finding[] = []
  readonly #counts = new Map<string, number>()

  add(...findings: readonly Finding[]): void {
    this.addAll(findings)
  }

  addAll(findings: Iterable<Finding>): void {
    for (const finding of findings) {
      const count = (this.#counts.get(finding.code) ?? 0) + 1
      this.#counts.set(finding.code, count)
      if (count <= LISTED_FINDINGS) this.#listed.push(finding)
    }
  }

  some(predicate: (finding: Finding) => boolean): boolean {
    return this.#listed.some(predicate)
  }

  /** At most 20 of each code, then one that counts the others. */
  list(): Finding[] {
    const more = [...this.#counts].filter(([, count]) => count > LISTED_FINDINGS)
    return [...this.#listed, ...more.map(([code, count]) => ({ code, message: `${count - LISTED_FINDINGS} more like the ${LISTED_FINDINGS} listed (${code}).` }))]
  }
}
