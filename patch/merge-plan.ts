import { checkWeight, effectiveScale } from './derivation.ts'
import { DTYPE_BITS, isMergeable, isTargetDtype } from './dtype.ts'
import type { MergeableDtype, TargetDtype } from './dtype.ts'
import type { DoraEdit, Edit, InitialFactors, MatrixView, RowRange, ValueRun } from './edit.ts'
import type { ManifestTensor, ModelManifest, PatchManifest } from './manifest.ts'
import type { UntiedHead } from './tied-embeddings.ts'

/** A patch laid on the target (adapterEdits), with its weight in the merge. */
export interface PlannedPatch {
  readonly manifest: PatchManifest
  readonly edits: readonly Edit[]
  readonly untied: UntiedHead | null
  readonly weight: number
  /** Needed where an edit reads the base. */
  readonly base: ModelManifest | null
}

/** A tensor that the merge changes, or adds where it unties embeddings. */
export interface TensorPlan {
  /** In the merged model. */
  readonly name: string
  readonly dtype: TargetDtype
  readonly shape: readonly number[]
  /** The tensor as a matrix. */
  readonly rows: number
  readonly cols: number
  /** The tensor of the target that W is read from. */
  readonly source: ManifestTensor
  /** The parts of adapter tensors that the blocks need in memory, each once. */
  readonly factors: readonly StoredFactor[]
  /** In order; together they cover every row. */
  readonly blocks: readonly Block<StoredBytes>[]
}

/** A run of bytes of a patch's file or of its base's. */
export interface StoredBytes {
  /** Place of the patch in the derivation. */
  readonly patch: number
  readonly of: 'patch' | 'base'
  readonly file: string
  /** In bytes from the start of the file. */
  readonly offset: number
  readonly length: number
  readonly dtype: TargetDtype
}

export type StoredFactor = StoredBytes & { readonly dtype: MergeableDtype }

/** Rows `[first, first + count)`. Without contributions they are copied bit for bit. */
export interface Block<Bytes> {
  readonly first: number
  readonly count: number
  /** In the order of summation. */
  readonly contributions: readonly Contribution<Bytes>[]
}

/** A matrix within one of `factors`, in elements. */
export interface FactorView {
  readonly factor: number
  readonly offset: number
  readonly strides: readonly [number, number]
}

interface Product {
  readonly rank: number
  /** (count, rank) */
  readonly left: FactorView
  /** (rank, cols) */
  readonly right: FactorView
}

/** What one edit adds to a block (docs/numerics.md). `scale` is float32 but for `dense`, where it is float64. */
export type Contribution<Bytes> =
  | (Product & { readonly kind: 'product'; readonly scale: number })
  | (Product & { readonly kind: 'dora'; readonly scale: number; readonly magnitude: Omit<FactorView, 'strides'>; readonly axis: DoraEdit['axis']; readonly weight: number })
  /** The product that the method takes out of the base's tensor, which lies as the target's does; from its row `first` on. */
  | { readonly kind: 'initial'; readonly method: InitialFactors['method']; readonly rank: number; readonly scale: number; readonly base: Bytes; readonly first: number }
  /** count · cols values each, streamed with the rows. */
  | { readonly kind: 'dense'; readonly scale: number; readonly value: Bytes; readonly base: Bytes | null }
  | { readonly kind: 'replace'; readonly value: Bytes }

/** Patches that fit the target one by one, but not together or not with this weight. */
export class MergePlanError extends Error {
  readonly code = 'patches-conflict'
  readonly tensor: string

  constructor(tensor: string, message: string) {
    super(message)
    this.name = 'MergePlanError'
    this.tensor = tensor
  }
}

const ONE_BY_ONE = 'Publish the merge of one as a model version and merge the other onto that.'

interface Laid {
  readonly edit: Edit
  readonly patch: number
}

/**
 * What a merge computes: every changed tensor in the order of the target's manifest, in blocks of rows, and last the head
 * that it gets where its embeddings are untied. Manifests, edits and weights decide the plan alone. Throws MergePlanError,
 * and DerivationError for a weight or a scale that float32 cannot hold.
 */
export function planMerge({ target, patches }: { readonly target: ModelManifest; readonly patches: readonly PlannedPatch[] }): TensorPlan[] {
  const untied = untiedHead(patches)
  const laid = new Map<string, Laid[]>()
  const lay = (name: string, one: Laid) => {
    const list = laid.get(name)
    if (list === undefined) laid.set(name, [one])
    else list.push(one)
  }
  for (const [patch, { edits }] of patches.entries()) {
    for (const edit of edits) {
      lay(edit.target, { edit, patch })
      // What is meant for both ends follows where another patch unties them.
      if (edit.isShared && edit.target === untied?.source) lay(untied.name, { edit, patch })
    }
  }
  const tensors = patches.map(({ manifest, base, weight }) => ({ weight: checkWeight(weight), patch: byName(manifest), base: base && byName(base) }))
  const places = target.tensors.map((tensor) => ({ name: tensor.name, source: tensor }))
  const head = untied && { name: untied.name, source: target.tensors.find(({ name }) => name === untied.source)! }
  const known = new Set([...places, ...(head === null ? [] : [head])].map(({ name }) => name))
  for (const name of laid.keys()) if (!known.has(name)) throw new Error(`an edit is for ${name}, which the target does not have`)
  const plan = ({ name, source }: { name: string; source: ManifestTensor }) => new TensorPlanner(name, source, tensors).plan(laid.get(name) ?? [])
  return [...places.filter(({ name }) => laid.has(name)).map(plan), ...(head === null ? [] : [plan(head)])]
}

/** The head that the merged model gets where a patch needs its embeddings untied. Throws MergePlanError where two name it differently. */
export function untiedHead(patches: readonly Pick<PlannedPatch, 'untied'>[]): UntiedHead | null {
  const [first = null, ...others] = patches.map(({ untied }) => untied).filter((untied) => untied !== null)
  const other = others.find(({ name }) => name !== first?.name)
  if (first !== null && other !== undefined) {
    throw new MergePlanError(first.name, `The patches name the head that untied embeddings need differently: ${first.name} and ${other.name}. Merge those trained on one model class at once.`)
  }
  return first
}

interface PatchTensors {
  readonly weight: number
  readonly patch: ReadonlyMap<string, ManifestTensor>
  readonly base: ReadonlyMap<string, ManifestTensor> | null
}

class TensorPlanner {
  readonly #name: string
  readonly #source: ManifestTensor
  readonly #patches: readonly PatchTensors[]
  /** The elements that are needed of each adapter tensor. */
  readonly #spans = new Map<string, { index: number; patch: number; tensor: ManifestTensor; first: number; end: number }>()

  constructor(name: string, source: ManifestTensor, patches: readonly PatchTensors[]) {
    this.#name = name
    this.#source = source
    this.#patches = patches
  }

  plan(laid: readonly Laid[]): TensorPlan {
    const name = this.#name
    const { dtype, shape } = this.#source
    if (!isTargetDtype(dtype)) throw new MergePlanError(name, `The target's ${name} is stored as ${dtype}, which cannot be merged.`)
    const cols = commonColumns(name, laid) ?? shape.at(-1) ?? 1
    const rows = shape.reduce((product, size) => product * size, 1) / cols
    const placed = laid.map((one) => ({ ...one, ...rowsAs(name, one.edit, cols) }))
    const blocks = cutRows(rows, placed).map(({ first, count, inside }) => {
      const contributions = inside.flatMap((one) => this.#contributions(one, { skipped: first - one.first, count, cols }, inside.length === 1))
      return { first, count, contributions }
    })
    if (blocks.length > 1 && laid.some(({ edit }) => edit.kind === 'dora' && edit.axis === 'columns')) {
      throw new MergePlanError(name, `One patch normalises the columns of ${name} (DoRA) and another changes some of its rows, which cannot be merged at once. ${ONE_BY_ONE}`)
    }
    return { name, dtype, shape, rows, cols, source: this.#source, factors: this.#factors(), blocks: blocks.map((block) => this.#rebase(block)) }
  }

  #contributions({ edit, patch }: Laid, at: { skipped: number; count: number; cols: number }, alone: boolean): Contribution<StoredBytes>[] {
    const { weight } = this.#patches[patch]!
    const run = (of: 'patch' | 'base', { tensor, offset }: ValueRun) => this.#bytes(patch, of, tensor, offset + at.skipped * at.cols, at.count * at.cols)
    switch (edit.kind) {
      case 'additive': {
        const scale = effectiveScale(weight, edit.scale)
        const product = { kind: 'product', scale, ...this.#product(patch, edit, at) } as const
        if (edit.initial === null) return [product]
        const { method, base } = edit.initial
        const { shape } = this.#tensor(patch, 'base', base)
        // PiSSA's factors have the scale in them; OLoRA's get it when they are taken out.
        const taken = method === 'pissa' ? effectiveScale(weight, -1) : -scale
        return [product, { kind: 'initial', method, rank: edit.rank, scale: taken, base: this.#bytes(patch, 'base', base, 0, shape.reduce((product, size) => product * size, 1)), first: at.skipped }]
      }
      case 'dora': {
        const offset = edit.magnitude.offset + (edit.axis === 'rows' ? at.skipped : 0)
        const magnitude = { factor: this.#need(patch, edit.magnitude.tensor, offset, edit.axis === 'rows' ? at.count : at.cols), offset }
        return [{ kind: 'dora', scale: effectiveScale(1, edit.scale), ...this.#product(patch, edit, at), magnitude, axis: edit.axis, weight }]
      }
      case 'dense':
        return [{ kind: 'dense', scale: weight * edit.scale, value: run('patch', edit.value), base: edit.base && run('base', edit.base) }]
      case 'replace':
        if (alone && weight === 1) return [{ kind: 'replace', value: run('patch', edit.value) }]
        if (edit.base === null) throw this.#replaceConflict(weight, alone)
        return [{ kind: 'dense', scale: weight, value: run('patch', edit.value), base: run('base', edit.base) }]
    }
  }

  #replaceConflict(weight: number, alone: boolean): MergePlanError {
    const name = this.#name
    return new MergePlanError(name, alone
      ? `A patch replaces values of ${name}, which has no meaning with the weight ${weight}. Give it the weight 1.`
      : `One patch replaces values of ${name} and another changes them as well, so that the order would decide. ${ONE_BY_ONE}`)
  }

  #product(patch: number, { rank, left, right }: { rank: number; left: MatrixView; right: MatrixView }, { skipped, count, cols }: { skipped: number; count: number; cols: number }): Product {
    const from = { ...left, offset: left.offset + skipped * left.strides[0] }
    return { rank, left: this.#view(patch, from, count, rank), right: this.#view(patch, right, rank, cols) }
  }

  #view(patch: number, { tensor, offset, strides }: MatrixView, rows: number, cols: number): FactorView {
    return { factor: this.#need(patch, tensor, offset, (rows - 1) * strides[0] + (cols - 1) * strides[1] + 1), offset, strides }
  }

  /** Notes that these elements are needed; the place of their factor. */
  #need(patch: number, name: string, first: number, count: number): number {
    const key = `${patch}\n${name}`
    const known = this.#spans.get(key)
    if (known === undefined) {
      const index = this.#spans.size
      this.#spans.set(key, { index, patch, tensor: this.#tensor(patch, 'patch', name), first, end: first + count })
      return index
    }
    known.first = Math.min(known.first, first)
    known.end = Math.max(known.end, first + count)
    return known.index
  }

  #factors(): StoredFactor[] {
    return [...this.#spans.values()].map(({ patch, tensor, first, end }) => {
      const { dtype, ...bytes } = this.#bytes(patch, 'patch', tensor.name, first, end - first)
      if (!isMergeable(dtype)) throw new Error(`the factor ${tensor.name} is ${dtype}`)
      return { ...bytes, dtype }
    })
  }

  /** The offsets of a block's views, which counted from the start of the adapter's tensor, from that of the factor. */
  #rebase(block: Block<StoredBytes>): Block<StoredBytes> {
    const starts = [...this.#spans.values()].map(({ first }) => first)
    const rebased = <T extends { factor: number; offset: number }>(view: T): T => ({ ...view, offset: view.offset - starts[view.factor]! })
    const contributions = block.contributions.map((one) => {
      if (one.kind === 'product') return { ...one, left: rebased(one.left), right: rebased(one.right) }
      if (one.kind === 'dora') return { ...one, left: rebased(one.left), right: rebased(one.right), magnitude: rebased(one.magnitude) }
      return one
    })
    return { ...block, contributions }
  }

  #tensor(patch: number, of: 'patch' | 'base', name: string): ManifestTensor {
    const tensor = this.#patches[patch]![of]?.get(name)
    if (tensor === undefined) throw new Error(`the ${of} has no tensor ${name}`)
    return tensor
  }

  #bytes(patch: number, of: 'patch' | 'base', name: string, first: number, count: number): StoredBytes {
    const { file, offset, length, dtype } = this.#tensor(patch, of, name)
    const width = DTYPE_BITS[dtype] / 8
    if (!isTargetDtype(dtype) || (first + count) * width > length) throw new Error(`${name} of the ${of} does not hold ${count} values of ${dtype} from ${first} on`)
    return { patch, of, file, offset: offset + first * width, length: count * width, dtype }
  }
}

interface PlacedEdit extends Laid, RowRange {}

/** The rows, cut wherever an edit begins or ends, with the edits of each run in their order. */
function cutRows(rows: number, placed: readonly PlacedEdit[]): (RowRange & { readonly inside: readonly PlacedEdit[] })[] {
  const cuts = [...new Set([0, rows, ...placed.flatMap(({ first, count }) => [first, first + count])])].sort((a, b) => a - b)
  const starting = Map.groupBy(placed.keys(), (index) => placed[index]!.first)
  let inside: number[] = []
  return cuts.slice(0, -1).map((first, index) => {
    inside = [...inside.filter((one) => placed[one]!.first + placed[one]!.count > first), ...(starting.get(first) ?? [])].sort((a, b) => a - b)
    return { first, count: cuts[index + 1]! - first, inside: inside.map((one) => placed[one]!) }
  })
}

/** Products decide how the tensor is seen; values that cover it whole follow. Null where nothing changes it. */
function commonColumns(name: string, laid: readonly Laid[]): number | null {
  const products = laid.filter(({ edit }) => edit.kind === 'additive' || edit.kind === 'dora')
  const [first, ...others] = products.length > 0 ? products : laid
  if (first === undefined) return null
  const { cols } = first.edit
  if (others.some(({ edit }) => edit.cols !== cols)) {
    throw new MergePlanError(name, `The patches see ${name} as matrices of different widths, so they cannot be merged at once. ${ONE_BY_ONE}`)
  }
  return cols
}

/** The rows of an edit where the tensor's matrix has this many cols. */
function rowsAs(name: string, { rows, cols: own }: Edit, cols: number): { first: number; count: number } {
  const first = (rows.first * own) / cols
  const count = (rows.count * own) / cols
  if (!Number.isInteger(first) || !Number.isInteger(count)) {
    throw new MergePlanError(name, `The patches change parts of ${name} that are not whole rows of one matrix. ${ONE_BY_ONE}`)
  }
  return { first, count }
}

function byName({ tensors }: { readonly tensors: readonly ManifestTensor[] }): ReadonlyMap<string, ManifestTensor> {
  return new Map(tensors.map((tensor) => [tensor.name, tensor]))
}
