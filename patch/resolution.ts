/** Verdicts of a resolution, best first (design.md, "Resolution"). */
export const VERDICTS = ['identical', 'portable', 'portable-with-warnings', 'unverified', 'incompatible'] as const
export type Verdict = (typeof VERDICTS)[number]

export const SEVERITIES = ['info', 'warning', 'refusal'] as const
export type Severity = (typeof SEVERITIES)[number]

/** One machine-readable reason of a verdict. */
export interface Reason {
  /** Closed code, such as `shape-mismatch`; the list is in compatibility.ts. */
  readonly code: string
  readonly severity: Severity
  /** One sentence: what was found, and where. */
  readonly message: string
  /** What the reader can do about it. */
  readonly remedy?: string
  readonly tensor?: string
  readonly expected?: string
  readonly found?: string
}

/** How the target descends from the base. */
export interface Lineage {
  /** `same`: the target is the base; `descends`: it has the base among its ancestors; `unrelated`: neither. */
  readonly relation: 'same' | 'descends' | 'unrelated'
  /** The steps from base to target, oldest first; empty unless `descends`. */
  readonly steps: readonly { readonly version: string; readonly kind: string }[]
}

export interface Resolution {
  readonly verdict: Verdict
  readonly reasons: readonly Reason[]
}
