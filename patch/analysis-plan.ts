import { readAdapter } from './adapter.ts'
import type { UnmeasuredTensor } from './analysis.ts'
import { DTYPE_BITS, isTargetDtype, type TargetDtype } from './dtype.ts'
import type { Edit } from './edit.ts'
import { adapterEdits } from './edits.ts'
import type { ManifestTensor, ModelManifest, PatchManifest } from './manifest.ts'
import { planMerge, type Block, type Contribution, type StoredBytes, type StoredFactor, type TensorPlan } from './merge-plan.ts'
import { describeShape } from './reason.ts'

/** Rows of each tensor whose best match in the target is looked for: enough over a model's tensors to see a permutation. */
export const SAMPLED_ROWS = 8

/** A run of bytes of a file of the base or of the target. */
export interface StoredRange {
  readonly file: string
  /** In bytes from the start of the file. */
  readonly offset: number
  readonly length: number
}

/** Rows of a tensor that the patch changes, in the target and in the base, and what it adds to them. */
export interface AnalysisRun {
  /** `first` counts in the tensor; only products contribute. */
  readonly block: Block<StoredBytes>
  readonly target: StoredRange
  readonly base: StoredRange
  /** Rows, counted from the first of the block, to look for in the target; where they lie in the base. */
  readonly sample: readonly { readonly row: number; readonly base: StoredRange }[]
}

/** A tensor to measure. */
export interface AnalysisTensor {
  readonly name: string
  readonly dtype: TargetDtype
  readonly baseDtype: TargetDtype
  readonly cols: number
  /** The parts of the adapter's tensors that the runs need, each once. */
  readonly factors: readonly StoredFactor[]
  readonly runs: readonly AnalysisRun[]
}

export interface AnalysisPlan {
  /** In the order of the target's manifest. */
  readonly tensors: readonly AnalysisTensor[]
  readonly unmeasured: readonly UnmeasuredTensor[]
}

export interface AnalysisPlanInput {
  readonly patch: PatchManifest
  readonly base: ModelManifest
  readonly target: ModelManifest
  /** The patch laid on the target. */
  readonly edits: readonly Edit[]
}

/**
 * What an analysis reads: the plan of the merge with weight 1, each tensor beside the base's. A tensor of the base is
 * the one that the same part of the adapter lands on there, whatever the prefix of its name.
 */
export function planAnalysis({ patch, base, target, edits }: AnalysisPlanInput): AnalysisPlan {
  const origins = originOf(patch, base, edits)
  const tensors: AnalysisTensor[] = []
  const unmeasured: UnmeasuredTensor[] = []
  for (const plan of planMerge({ target, patches: [{ manifest: patch, edits, untied: null, weight: 1, base }] })) {
    const planned = planTensor(plan, origins(plan))
    if (typeof planned === 'string') unmeasured.push({ name: plan.name, reason: planned })
    else tensors.push(planned)
  }
  return { tensors, unmeasured }
}

function originOf(patch: PatchManifest, base: ModelManifest, edits: readonly Edit[]): (plan: TensorPlan) => ManifestTensor | undefined {
  const byName = new Map(base.tensors.map((tensor) => [tensor.name, tensor]))
  const onBase = new Map(placesOf(adapterEdits(readAdapter(patch.adapterConfig, patch.tensors), base, base).edits))
  const onTarget = new Map(placesOf(edits).map(([key, target]) => [target, key]))
  return ({ name, source }) => byName.get(onBase.get(onTarget.get(name) ?? '') ?? source.name)
}

/** The tensors that each part of the adapter lands on: experts lie on several, in the same order everywhere. */
function placesOf(edits: readonly Edit[]): [key: string, target: string][] {
  const seen = new Map<string, number>()
  return edits.map(({ consumes, target }) => {
    const part = [...consumes].sort().join('\n')
    const index = seen.get(part) ?? 0
    seen.set(part, index + 1)
    return [`${part}\n${index}`, target]
  })
}

/** A sentence instead, where nothing can be measured. */
function planTensor(plan: TensorPlan, base: ManifestTensor | undefined): AnalysisTensor | string {
  const { name, dtype, shape, rows, cols, source, factors } = plan
  if (base === undefined) return 'The base has no such tensor.'
  if (base.shape.length !== shape.length || base.shape.some((size, index) => size !== shape[index])) {
    return `The base's ${base.name} has the shape ${describeShape(base.shape)}, the target's ${describeShape(shape)}.`
  }
  if (!isTargetDtype(base.dtype)) return `The base's ${base.name} is stored as ${base.dtype}, which is not compared.`
  const changed = plan.blocks.filter(({ contributions }) => contributions.length > 0)
  const other = changed.flatMap(({ contributions }) => contributions).find(({ kind }) => kind !== 'product')
  if (other !== undefined) return KINDS[other.kind]
  const perRun = Math.max(1, Math.floor(SAMPLED_ROWS / changed.length))
  const range = ({ file, offset, length }: ManifestTensor, first: number, count: number): StoredRange => ({ file, offset: offset + (first * length) / rows, length: (count * length) / rows })
  const runs = changed.map((block) => ({
    block,
    target: range(source, block.first, block.count),
    base: range(base, block.first, block.count),
    sample: sampledRows(block.count, perRun).map((row) => ({ row, base: range(base, block.first + row, 1) })),
  }))
  return { name, dtype, baseDtype: base.dtype, cols, factors, runs }
}

/** Why a contribution that is no plain product is left out. */
const KINDS: Readonly<Record<Contribution<unknown>['kind'], string>> = {
  product: '',
  dora: 'The patch normalises it (DoRA), so what it adds depends on the target and has no low rank.',
  initial: 'The patch takes a product of the base out first (PiSSA or OLoRA), which is not measured yet.',
  dense: 'The patch adds a full difference of values, which has no low rank.',
  replace: 'The patch replaces its values.',
}

/** At most `count` rows of a tensor, evenly spread, the same for the same tensor; none of a single row, which has no others. */
export function sampledRows(rows: number, count: number): number[] {
  if (rows < 2) return []
  const taken = Math.min(rows, count)
  return Array.from({ length: taken }, (_, index) => Math.floor(((2 * index + 1) * rows) / (2 * taken)))
}

/** Bytes of base and target that an analysis streams; what it shows its progress in. */
export function analysisBytes(tensors: readonly { readonly runs: readonly { readonly block: { readonly count: number } }[]; readonly cols: number; readonly dtype: TargetDtype; readonly baseDtype: TargetDtype }[]): number {
  return tensors.reduce((sum, { runs, cols, dtype, baseDtype }) => sum + runs.reduce((rows, { block }) => rows + block.count, 0) * cols * (DTYPE_BITS[dtype] + DTYPE_BITS[baseDtype]) / 8, 0)
}
