import { DTYPE_BITS, TARGET_DTYPES, type Dtype, type TargetDtype } from '../../patch/dtype.ts'
import { CORE_DTYPES, CoreError, type CorePath, type Library, type NativeMatrix, type NativeProduct, type TensorHandle } from './library.ts'

/** The native library with the choices of one Core. */
export interface Engine {
  readonly library: Library
  readonly path: CorePath
  /** The processor's best, for tensors that `path` cannot merge. */
  readonly processorPath: CorePath
  readonly threads: number
}

/** Stored numbers, exactly as their file has them. */
export interface StoredNumbers {
  readonly bytes: Uint8Array
  readonly dtype: Dtype
}

/** A matrix within the stored bytes of an adapter tensor: (i, j) lies at `offset + i·strides[0] + j·strides[1]`, in elements. */
export interface FactorBytes extends StoredNumbers {
  readonly offset: number
  readonly strides: readonly [number, number]
}

/** left is (rows, rank), right is (rank, cols), each in F32, F16 or BF16. */
interface Product {
  readonly left: FactorBytes
  readonly right: FactorBytes
  readonly rank: number
  /** Refused where it is no float32. */
  readonly scale: number
}

/** What is added to W, or stands in its place (docs/numerics.md). Factors and magnitudes are copied; they must be finite. */
export type Contribution =
  /** `t += scale · left @ right`; the scale is the effective one, `fround(weight · alpha/rank)`. */
  | (Product & { readonly kind: 'product' })
  /**
   * `t += weight · (m·(W + scale · left @ right)/n − W)`, n being the norm of each row or of each column over all rows of
   * the TensorSpec; alone and with weight 1, W is not subtracted. The magnitude holds m: rows or cols values, in F32, F16
   * or BF16.
   */
  | (Product & { readonly kind: 'dora'; readonly magnitude: StoredNumbers; readonly axis: 'rows' | 'columns'; readonly weight: number })
  /** `t += scale · (value − base)`, or `scale · value` where base is null. Both operands are streamed with the rows. */
  | { readonly kind: 'dense'; readonly scale: number; readonly value: Dtype; readonly base: Dtype | null }
  /** The output is the value, rounded; it stands alone. Streamed with the rows. */
  | { readonly kind: 'replace'; readonly value: Dtype }

/** The tensor as stored, seen as a row-major matrix, or a run of its rows; contributions in the order of summation. */
export interface TensorSpec {
  readonly dtype: TargetDtype
  readonly rows: number
  readonly cols: number
  readonly contributions: readonly Contribution[]
}

/** Over all rows merged: Frobenius norms of P, of round(W+P) − W, and of their difference; and the count of outputs that are NaN or infinite. */
export interface MergeFigures {
  readonly patchNorm: number
  readonly realisedNorm: number
  readonly residualNorm: number
  readonly nonFinite: number
}

/** One target tensor with its factors packed; costs `packedBytes` (patch/packed-bytes.ts) until finished. */
export interface TensorMerge {
  /** What computes this tensor: the core's path, or the processor's best where that cannot. */
  readonly path: CorePath
  /** Whether `measureRows` has to see all rows before the first `mergeRows`: so with DoRA over columns. */
  readonly measures: boolean
  /** The first pass over rows of W, where `measures` says so: in order, each row once, in any tiling. */
  measureRows(firstRow: number, rowCount: number, w: Uint8Array): Promise<void>
  /**
   * Merges rows `[firstRow, firstRow + rowCount)`. `w` holds exactly those rows as stored, `out` receives them; `out` may
   * be `w`. `operands` are the same rows of every dense and replacing contribution in order: of its value, then of its
   * base if it has one. None may be touched before the promise settles. Rows may come in any order, tiling and number of
   * threads: the bytes and figures are the same.
   */
  mergeRows(firstRow: number, rowCount: number, w: Uint8Array, out: Uint8Array, operands?: readonly Uint8Array[]): Promise<void>
  /** The same with one thread, W being read from the open file, where `firstRow` begins at byte `offset`: for rows that are to be sent. */
  mergeFileRows(firstRow: number, rowCount: number, file: number, offset: number, out: Uint8Array, operands?: readonly Uint8Array[]): Promise<void>
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
export function openTensor({ library, path: wanted, processorPath, threads }: Engine, spec: TensorSpec, { figures = true }: TensorOptions = {}): TensorMerge {
  const handle = packTensor(library, spec)
  const path = library.computes(handle, wanted) ? wanted : processorPath
  const kept = figures ? 'all' : 'none'
  let running = 0
  let open = true
  const pass = async (name: string, firstRow: number, rowCount: number, body: () => Promise<void>) => {
    if (!open) throw new CoreError('invalid', `${name} after finish`)
    requireCounts({ firstRow, rowCount })
    running++
    try {
      await body()
    } finally {
      running--
    }
  }
  const merge: TensorMerge = {
    path,
    measures: library.measures(handle),
    measureRows: (firstRow, rowCount, w) =>
      pass('measureRows', firstRow, rowCount, () => library.measure(handle, path, threads, firstRow, rowCount, w)),
    mergeRows: (firstRow, rowCount, w, out, operands) =>
      pass('mergeRows', firstRow, rowCount, () => library.merge(handle, path, threads, kept, firstRow, rowCount, w, out, operands)),
    mergeFileRows: (firstRow, rowCount, file, offset, out, operands) =>
      pass('mergeFileRows', firstRow, rowCount, () => library.mergeFile(handle, path, kept, firstRow, rowCount, file, offset, out, operands)),
    finish() {
      if (!open) throw new CoreError('invalid', 'finish was called before')
      if (running > 0) throw new CoreError('invalid', 'finish while rows are being measured or merged: await that first')
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
    if (spec.contributions.length === 0) throw new CoreError('invalid', 'nothing is added to the tensor')
    for (const contribution of spec.contributions) add(library, handle, contribution)
  } catch (error) {
    library.free(handle)
    throw error
  }
  return handle
}

/** Bytes of one row of each operand that mergeRows takes, in order. */
export function operandRowBytes({ cols, contributions }: Pick<TensorSpec, 'cols' | 'contributions'>): number[] {
  const bytes = (dtype: Dtype) => (cols * DTYPE_BITS[dtype]) / 8
  return contributions.flatMap((one) => {
    if (one.kind === 'replace') return [bytes(one.value)]
    if (one.kind === 'dense') return one.base === null ? [bytes(one.value)] : [bytes(one.value), bytes(one.base)]
    return []
  })
}

function add(library: Library, handle: TensorHandle, contribution: Contribution): void {
  switch (contribution.kind) {
    case 'product':
      return library.addProduct(handle, nativeProduct(contribution))
    case 'dora': {
      const { magnitude, axis, weight } = contribution
      const stored = { bytes: magnitude.bytes, dtype: factorDtype(magnitude.dtype, 'magnitude') }
      return library.addDora(handle, nativeProduct(contribution), stored, AXES.indexOf(axis), weight)
    }
    case 'dense':
      return library.addDense(handle, operandDtype(contribution.value, 'value'), contribution.base === null ? -1 : operandDtype(contribution.base, 'base'), contribution.scale)
    case 'replace':
      return library.addReplace(handle, operandDtype(contribution.value, 'value'))
  }
}

/** In the order of portllm_axis. */
const AXES: readonly string[] = ['rows', 'columns']

function nativeProduct({ left, right, rank, scale }: Product): NativeProduct {
  requireCounts({ rank })
  if (!Object.is(Math.fround(scale), scale)) throw new CoreError('invalid', `the scale ${scale} is no float32: round it with Math.fround first`)
  return { left: nativeMatrix(left, 'left factor'), right: nativeMatrix(right, 'right factor'), rank, scale }
}

function nativeMatrix({ bytes, dtype, offset, strides }: FactorBytes, name: string): NativeMatrix {
  requireCounts({ [`the offset of the ${name}`]: offset, [`a stride of the ${name}`]: strides[0], [`the other stride of the ${name}`]: strides[1] })
  return { bytes, dtype: factorDtype(dtype, name), offset, strides }
}

function factorDtype(dtype: Dtype, name: string): number {
  const number = CORE_DTYPES[dtype]
  if (number === undefined) throw new CoreError('invalid', `the ${name} is ${dtype}: only F32, F16 and BF16 can be merged`)
  return number
}

function operandDtype(dtype: Dtype, name: string): number {
  const number = CORE_DTYPES[dtype]
  if (number === undefined || dtype === 'F8_E8M0') throw new CoreError('invalid', `the ${name} is ${dtype}: only ${TARGET_DTYPES.join(', ')} can be merged`)
  return number
}

function requireCounts(counts: Record<string, number>): void {
  for (const [name, value] of Object.entries(counts)) {
    if (!Number.isSafeInteger(value) || value < 0) throw new CoreError('invalid', `${name} is ${value}: a whole number is needed`)
  }
}
