import type { Derivation } from './derivation.ts'

/** What came of one changed tensor. Norms are Frobenius norms (docs/numerics.md, "Figures"). */
export interface TensorReceipt {
  readonly name: string
  /** `sha256:…` of the merged tensor's bytes. */
  readonly digest: string
  /** ‖P‖: what was asked to be added. */
  readonly patchNorm: number
  /** ‖round(W+P) − W‖: what was added. */
  readonly realisedNorm: number
  /** ‖round(W+P) − W − P‖: what rounding took. */
  readonly residualNorm: number
  /** Paths of the core that computed it: usually the engine's, the processor's for what a GPU path cannot merge. */
  readonly paths: string[]
}

export interface ReceiptEngine {
  readonly name: string
  readonly version: string
  /** The core's path that computed the bytes, such as `avx512`; they do not depend on it. */
  readonly path: string
}

/** The statement of a merge: from what, by which rules, by what engine, to which bytes. */
export interface Receipt {
  readonly format: 'portllm.receipt/1'
  /** SHA-256 of the recipe's canonical JSON, 64 hex digits. */
  readonly derivation: string
  /** Names every input by digest, and the rules. */
  readonly recipe: Derivation
  readonly engine: ReceiptEngine
  /** In the order of the target's manifest. */
  readonly tensors: readonly TensorReceipt[]
  readonly totals: ReceiptTotals
}

/** Over all changed tensors together. */
export interface ReceiptTotals {
  readonly patchNorm: number
  /** ‖round(W+P) − W‖ / ‖P‖: what part of the patches' size is in the merged model; null where they add nothing. */
  readonly realisedDelta: number | null
  /** ‖round(W+P) − W − P‖ / ‖P‖: what rounding to the target's dtype took, in parts of the patches' size; null likewise. */
  readonly roundingLoss: number | null
}

export function receiptTotals(tensors: readonly Pick<TensorReceipt, 'patchNorm' | 'realisedNorm' | 'residualNorm'>[]): ReceiptTotals {
  // Math.hypot takes its arguments on the stack, and a model may have more tensors than that holds.
  const norm = (values: readonly number[]) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0))
  const patchNorm = norm(tensors.map((tensor) => tensor.patchNorm))
  const part = (value: number) => (patchNorm > 0 ? value / patchNorm : null)
  return {
    patchNorm,
    realisedDelta: part(norm(tensors.map((tensor) => tensor.realisedNorm))),
    roundingLoss: part(norm(tensors.map((tensor) => tensor.residualNorm))),
  }
}

export function newReceipt({ derivation, recipe, engine, tensors }: Omit<Receipt, 'format' | 'totals'>): Receipt {
  return { format: 'portllm.receipt/1', derivation, recipe, engine, tensors, totals: receiptTotals(tensors) }
}

/** `count` of the names, chosen by the seed alone: whoever repeats a check with its seed checks the same tensors. */
export function sampleNames(names: readonly string[], count: number, seed: number): string[] {
  const shuffled = [...names]
  let state = (seed >>> 0) + 0x9e3779b9
  for (let last = shuffled.length - 1; last > 0; last--) {
    // mulberry32: what matters is that every runtime draws the same.
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    const index = Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * (last + 1))
    ;[shuffled[last], shuffled[index]] = [shuffled[index]!, shuffled[last]!]
  }
  const chosen = new Set(shuffled.slice(0, count))
  return names.filter((name) => chosen.has(name))
}
