/** Verdicts of a resolution, best first (design.md, "Resolution"). */
export const VERDICTS = ['identical', 'portable', 'portable-with-warnings', 'unverified', 'incompatible'] as const
export type Verdict = (typeof VERDICTS)[number]

export const SEVERITIES = ['info', 'warning', 'refusal'] as const
export type Severity = (typeof SEVERITIES)[number]

/** Every code that a reason may have, in the order of the checks. */
export const REASON_CODES = [
  // what the adapter is
  'peft-type', 'dora', 'lora-bias', 'trained-bias', 'modules-to-save', 'trainable-tokens', 'base-changing-initialisation',
  'unknown-initialisation', 'target-parameters', 'activated-lora', 'arrow', 'kasa', 'monteclora', 'bdlora', 'qalora', 'velora',
  'megatron', 'layer-replication', 'convolution', 'multihead-attention', 'unknown-config-key',
  'unknown-adapter-tensor', 'factor-dtype', 'unsupported-pattern', 'overlapping-patterns', 'unused-pattern', 'untargeted-module',
  'unused-target-module', 'targeting-unchecked', 'embedding-copy', 'unchanged-value', 'empty-adapter',
  // how it lies on the target
  'architecture', 'quantized-target', 'tied-weights', 'fewer-layers', 'more-layers', 'missing-tensor', 'ambiguous-tensor', 'tensor-edited-twice',
  'vocabulary-size', 'shape-mismatch', 'layout-mismatch', 'target-dtype', 'unused-adapter-tensor', 'patches-conflict',
  // how the target descends from the base
  'identical', 'descends', 'unrelated',
  'tokenizer-changed', 'tokenizer-changed-under-edit', 'chat-template-changed',
  // what the publisher says
  'outside-declared-range', 'declared-range-unchecked', 'yanked', 'deprecated',
] as const
export type ReasonCode = (typeof REASON_CODES)[number]

/** One machine-readable reason of a verdict. */
export interface Reason {
  readonly code: ReasonCode
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
