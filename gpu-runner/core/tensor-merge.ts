import type { Dtype, MergeableDtype } from '../../patch/dtype.ts'
import { CORE_DTYPES, CoreError, type CorePath, type Library, type TensorHandle } from './library.ts'

/** The native library with the choices of one Core. */
export interface Engine {
  readonly library: Library
  readonly path: CorePath
  readonly threads: number
}

/** The stored bytes of one adapter tensor, exactly as the adapter's file has them. */
export interface FactorBytes {
  readonly bytes: Uint8Array
  readonly dtype: Dtype
  /** `left` stored as (rank, rows), or `right` stored as (cols, rank). */
  readonly transpose: boolean
}

/** `scale · left @ right`: left is (rows, rank), right is (rank, cols). */
export interface Addend {
  readonly left: FactorBytes
  readonly right: FactorBytes
  readonly rank: number
  /** The effective scale `fround(weight · alpha/rank)`; refused where it is no float32. */
  readonly scale: number
}

/** The tensor as stored (row-major) and what is added to it, in the order of summation. */
export interface TensorSpec {
  readonly dtype: MergeableDtype
  readonly rows: number
  readonly cols: number
  readonly addends: readonly Addend[]
}

/** Over all rows merged: Frobenius norms of P, of round(W+P) − W, and of their difference; and the count of outputs that are NaN or infinite. */
export interface MergeFigures {
  readonly patchNorm: number
  readonly realisedNorm: number
  readonly residualNorm: number
  readonly nonFinite: number
}

/** One target tensor with its factors packed; costs `4 · rank · (rows + cols)` bytes until finished. */
export interface TensorMerge {
  /**
   * Merges rows `[firstRow, firstRow + rowCount)`. `w` holds exactly those rows as stored, `out` receives
   * them; `out` may be `w`. Neither may be touched before the promise settles. Rows may come in any order,
   * tiling and number of threads: the bytes and figures are the same.
   */
  mergeRows(firstRow: number, rowCount: number, w: Uint8Array, out: Uint8Array): Promise<void>
  /** The figures over the rows merged so far, and frees the factors. @throws where a mergeRows is still running. */
  finish(): MergeFigures
}

export interface TensorOptions {
  /** False leaves the figures out, which serving does not need; `finish` then gives zeros. */
  readonly figures?: boolean
}

/** Frees the native side of a TensorMerge that was dropped without finish(). */
const abandoned = new FinalizationRegistry<() => void>((free) => free())

/** Packs the factors and opens the tensor for merging. */
export function openTensor({ library, path, threads }: Engine, spec: TensorSpec, { figures = true }: TensorOptions = {}): TensorMerge {
  const handle = packTensor(library, spec)
  let running = 0
  let open = true
  const merge: TensorMerge = {
    async mergeRows(firstRow, rowCount, w, out) {
      if (!open) throw new CoreError('invalid', 'mergeRows after finish')
      requireCounts({ firstRow, rowCount })
      running++
      try {
        await library.merge(handle, path, threads, figures, firstRow, rowCount, w, out)
      } finally {
        running--
      }
    },
    finish() {
      if (!open) throw new CoreError('invalid', 'finish was called before')
      if (running > 0) throw new CoreError('invalid', 'finish while mergeRows is running: await it first')
      open = false
      abandoned.unregister(merge)
      try {
        return library.figures(handle)
      } finally {
        library.free(handle)
      }
    },
  }
  abandoned.register(merge, () => library.free(handle), merge)
  return merge
}

/** A native tensor with its factors packed; the caller frees it. */
export function packTensor(library: Library, spec: TensorSpec): TensorHandle {
  requireCounts({ rows: spec.rows, cols: spec.cols })
  const handle = library.createTensor(CORE_DTYPES[spec.dtype] ?? -1, spec.rows, spec.cols)
  try {
    if (spec.addends.length === 0) throw new CoreError('invalid', 'nothing is added to the tensor')
    for (const addend of spec.addends) {
      requireCounts({ rank: addend.rank })
      if (!Object.is(Math.fround(addend.scale), addend.scale)) {
        throw new CoreError('invalid', `the scale ${addend.scale} is no float32: round it with Math.fround first`)
      }
      library.addProduct(handle, stored(addend.left, 'left'), stored(addend.right, 'right'), addend.rank, addend.scale)
    }
  } catch (error) {
    library.free(handle)
    throw error
  }
  return handle
}

function stored(factor: FactorBytes, name: string) {
  const dtype = CORE_DTYPES[factor.dtype]
  if (dtype === undefined) {
    throw new CoreError('invalid', `the ${name} factor is ${factor.dtype}: only F32, F16 and BF16 can be merged`)
  }
  return { bytes: factor.bytes, dtype, transposed: factor.transpose }
}

function requireCounts(counts: Record<string, number>): void {
  for (const [name, value] of Object.entries(counts)) {
    if (!Number.isSafeInteger(value) || value < 0) throw new CoreError('invalid', `${name} is ${value}: a whole number is needed`)
  }
}
