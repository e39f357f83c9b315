/** The rule that fixes the arithmetic of a merge to the bit (docs/numerics.md). */
export const RULES = ['lora-f32/1'] as const
export type Rule = (typeof RULES)[number]

/** The recipe of a merged model. Its id is the SHA-256 of its canonical JSON (RFC 8785). */
export interface Derivation {
  readonly format: 'portllm.derivation/1'
  readonly rule: Rule
  /** Digest of the target model version, `sha256:…`. */
  readonly target: string
  /** In the order of summation. */
  readonly patches: readonly { readonly digest: string; readonly weight: number }[]
  /** Output dtype of the changed tensors: `target` keeps each tensor's own. */
  readonly dtype: 'target'
}
