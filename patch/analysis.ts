import { MODEL_PARTS, modelPart, type ModelPart } from './model-part.ts'
import { splitLayer } from './tensor-names.ts'

/**
 * What is measured of a patch P on one tensor (or a run of its rows): W of the base, W' of the target, D = W' − W.
 * Squared Frobenius norms and counts, which add up over tensors (docs/analysis.md).
 */
export interface AnalysisSums {
  readonly baseSquared: number
  readonly driftSquared: number
  readonly patchSquared: number
  /** Largest singular value of P; of several tensors, the largest. */
  readonly patchSpectral: number
  /** ⟨D, P⟩ */
  readonly inner: number
  /** ‖D·Q_A‖², what chance would make of it, and ‖W·Q_A‖². */
  readonly driftReadSquared: number
  readonly driftReadExpected: number
  readonly baseReadSquared: number
  /** ‖Q_Bᵀ·D‖², what chance would make of it, and ‖Q_Bᵀ·W‖². */
  readonly driftWriteSquared: number
  readonly driftWriteExpected: number
  readonly baseWriteSquared: number
  /** ‖P‖² and ‖round(W'+P) − W' − P‖² of the merge's own arithmetic, over the elements that stay finite. */
  readonly mergedSquared: number
  readonly lostSquared: number
  /** Elements of the merge that are NaN or infinite. */
  readonly nonFinite: number
  /** Rows of W whose best match in W' was looked for, those whose best match is another row, and the sums of their cosines. */
  readonly rowsSampled: number
  readonly rowsElsewhere: number
  readonly sameRowCosine: number
  readonly bestOtherCosine: number
}

/** The figures; null where they are a quotient by zero. */
export interface AnalysisFigures {
  /** ‖D‖/‖W‖ */
  readonly relativeDrift: number | null
  /** ‖P‖, and its largest singular value. */
  readonly patchNorm: number
  readonly patchSpectralNorm: number
  /** ‖P‖/‖D‖ */
  readonly patchOverDrift: number | null
  /** ⟨D, P⟩/(‖D‖·‖P‖): negative where the update opposes the patch. */
  readonly interference: number | null
  /** Of the drift, the part in the directions that the patch reads from and writes to. */
  readonly seen: { readonly read: SeenDrift | null; readonly write: SeenDrift | null }
  /** ‖D·Q_A‖/‖W·Q_A‖ and ‖Q_Bᵀ·D‖/‖Q_Bᵀ·W‖ */
  readonly readDrift: number | null
  readonly writeDrift: number | null
  /** ‖round(W'+P) − W' − P‖/‖P‖: 0 where the patch survives the rounding whole. */
  readonly roundingLoss: number | null
  /** Elements of the merged tensor that are NaN or infinite. */
  readonly nonFinite: number
  readonly rowMatch: RowMatch | null
}

export interface SeenDrift {
  /** ‖D·Q‖²/‖D‖² */
  readonly share: number
  /** What a drift without any direction of its own would give. */
  readonly chance: number
  /** share/chance */
  readonly lift: number
}

/** The permutation alarm: rows of W beside rows of W'. */
export interface RowMatch {
  readonly sampled: number
  /** Sampled rows that are nearer to another row of W' than to the one at their own place. */
  readonly elsewhere: number
  /** Mean cosines of the sampled rows with the row at the same place, and with the best of the others. */
  readonly same: number
  readonly bestOther: number
}

/** What was measured of one tensor. */
export interface MeasuredTensor {
  readonly name: string
  /** As a matrix; `rows` those that the patch changes. */
  readonly rows: number
  readonly cols: number
  readonly rank: number
  readonly sums: AnalysisSums
}

/** A tensor that the patch changes and of which nothing can be said. */
export interface UnmeasuredTensor {
  readonly name: string
  readonly reason: string
}

export interface Analysis {
  readonly format: 'portllm.analysis/1'
  /** `sha256:…` of the versions. */
  readonly patch: string
  readonly base: string
  readonly target: string
  readonly measured: {
    /** Who says so: the address of a registry, or `local`. */
    readonly by: string
    /** ISO 8601. */
    readonly at: string
    readonly engine: { readonly name: string; readonly version: string; readonly path: string }
    readonly seconds: number
  }
  readonly whole: AnalysisFigures
  readonly parts: readonly { readonly part: ModelPart; readonly tensors: number; readonly figures: AnalysisFigures }[]
  /** In the order of the layers; attention and MLP apart. */
  readonly layers: readonly { readonly stack: string; readonly layer: number; readonly part: ModelPart; readonly figures: AnalysisFigures }[]
  readonly tensors: readonly { readonly name: string; readonly part: ModelPart; readonly layer: number | null; readonly rows: number; readonly cols: number; readonly rank: number; readonly figures: AnalysisFigures }[]
  readonly unmeasured: readonly UnmeasuredTensor[]
}

export interface AnalysisInput extends Pick<Analysis, 'patch' | 'base' | 'target' | 'measured' | 'unmeasured'> {
  /** In the order of the target's tensors. */
  readonly tensors: readonly MeasuredTensor[]
}

/** The result of an analysis from what was measured. */
export function analysisOf({ tensors: measured, ...input }: AnalysisInput): Analysis {
  const tensors = measured.map((tensor) => ({ ...tensor, part: modelPart(tensor.name), ...stackOf(tensor.name) }))
  const sums = (of: readonly { readonly sums: AnalysisSums }[]) => figuresOf(addSums(of.map((tensor) => tensor.sums)))
  const byLayer = Map.groupBy(tensors.filter(({ layer }) => layer !== null), ({ stack, layer, part }) => `${stack}\n${layer}\n${part}`)
  return {
    format: 'portllm.analysis/1',
    patch: input.patch,
    base: input.base,
    target: input.target,
    measured: input.measured,
    whole: sums(tensors),
    parts: MODEL_PARTS.flatMap((part) => {
      const of = tensors.filter((tensor) => tensor.part === part)
      return of.length === 0 ? [] : [{ part, tensors: of.length, figures: sums(of) }]
    }),
    layers: [...byLayer.values()]
      .map((of) => ({ stack: of[0]!.stack, layer: of[0]!.layer!, part: of[0]!.part, figures: sums(of) }))
      .sort((a, b) => (a.stack === b.stack ? a.layer - b.layer || MODEL_PARTS.indexOf(a.part) - MODEL_PARTS.indexOf(b.part) : a.stack < b.stack ? -1 : 1)),
    tensors: tensors.map(({ name, part, layer, rows, cols, rank, sums: own }) => ({ name, part, layer, rows, cols, rank, figures: figuresOf(own) })),
    unmeasured: input.unmeasured,
  }
}

const NOTHING: AnalysisSums = {
  baseSquared: 0, driftSquared: 0, patchSquared: 0, patchSpectral: 0, inner: 0,
  driftReadSquared: 0, driftReadExpected: 0, baseReadSquared: 0, driftWriteSquared: 0, driftWriteExpected: 0, baseWriteSquared: 0,
  mergedSquared: 0, lostSquared: 0, nonFinite: 0, rowsSampled: 0, rowsElsewhere: 0, sameRowCosine: 0, bestOtherCosine: 0,
}

/** The sums of several tensors together, as of one block-diagonal matrix. */
export function addSums(all: readonly AnalysisSums[]): AnalysisSums {
  return all.reduce((total, one) => {
    const added = Object.fromEntries(Object.keys(NOTHING).map((key) => [key, total[key as keyof AnalysisSums] + one[key as keyof AnalysisSums]])) as unknown as AnalysisSums
    return { ...added, patchSpectral: Math.max(total.patchSpectral, one.patchSpectral) }
  }, NOTHING)
}

export function figuresOf(sums: AnalysisSums): AnalysisFigures {
  const { baseSquared, driftSquared, patchSquared, rowsSampled: sampled } = sums
  return {
    relativeDrift: root(driftSquared, baseSquared),
    patchNorm: Math.sqrt(patchSquared),
    patchSpectralNorm: sums.patchSpectral,
    patchOverDrift: root(patchSquared, driftSquared),
    interference: driftSquared > 0 && patchSquared > 0 ? sums.inner / (Math.sqrt(driftSquared) * Math.sqrt(patchSquared)) : null,
    seen: {
      read: seen(sums.driftReadSquared, sums.driftReadExpected, driftSquared),
      write: seen(sums.driftWriteSquared, sums.driftWriteExpected, driftSquared),
    },
    readDrift: root(sums.driftReadSquared, sums.baseReadSquared),
    writeDrift: root(sums.driftWriteSquared, sums.baseWriteSquared),
    roundingLoss: root(sums.lostSquared, sums.mergedSquared),
    nonFinite: sums.nonFinite,
    rowMatch: sampled === 0 ? null : {
      sampled, elsewhere: sums.rowsElsewhere, same: sums.sameRowCosine / sampled, bestOther: sums.bestOtherCosine / sampled,
    },
  }
}

function root(part: number, whole: number): number | null {
  return whole > 0 ? Math.sqrt(part / whole) : null
}

function seen(share: number, expected: number, whole: number): SeenDrift | null {
  return expected > 0 ? { share: share / whole, chance: expected / whole, lift: share / expected } : null
}

/** `model.layers` and 3 for `model.layers.3.mlp.up_proj.weight`; the stack keeps an encoder's layers from a decoder's. */
function stackOf(name: string): { readonly stack: string; readonly layer: number | null } {
  const { pattern, layer } = splitLayer(name)
  return { stack: layer === null ? '' : pattern.slice(0, Math.max(0, pattern.indexOf('*') - 1)), layer }
}
