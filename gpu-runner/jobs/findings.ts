import { keepable } from '../../patch/keepable-text.ts'
import type { Finding } from '../protocol.ts'

/** Reasons of one code that are listed one by one; the rest is counted. */
const LISTED_FINDINGS = 20

/** Findings quote what was uploaded, and the registry keeps them. */
function shown({ code, message, file, tensor }: Finding): Finding {
  return { code, message: keepable(message), ...(file !== undefined && { file: keepable(file) }), ...(tensor !== undefined && { tensor: keepable(tensor) }) }
}

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
      if (count <= LISTED_FINDINGS) this.#listed.push(shown(finding))
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
