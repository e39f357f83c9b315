import type { AnalysisSums } from '../../patch/analysis.ts'
import type { TargetDtype } from '../../patch/dtype.ts'
import type { AnalysisHandle, AnalysisLibrary, NativeSums } from './analysis-library.ts'
import { CORE_DTYPES, CoreError, type NativeMatrix } from './library.ts'
import { openTensor, type Engine, type FactorBytes, type TensorMerge, type TensorSpec } from './tensor-merge.ts'

/** A tensor of the target as in TensorSpec, beside the tensor of the base. Products only. */
export interface AnalysisSpec extends TensorSpec {
  readonly baseDtype: TargetDtype
  /** Rows of the base whose best match in the target is looked for: their numbers, ascending, and their stored bytes. */
  readonly sample: { readonly rows: readonly number[]; readonly bytes: Uint8Array } | null
}

/** One tensor whose rows stream through once, in order. Costs about `8 · rank · (rows + 3·cols) + 4 · rank · (rows + cols)` bytes. */
export interface TensorAnalysis {
  /**
   * The next rows of base and target, as stored. `target` is overwritten by its merge, whose rounding is measured too.
   * Neither may be touched before the promise settles.
   */
  addRows(firstRow: number, rowCount: number, base: Uint8Array, target: Uint8Array): Promise<void>
  /** Once all rows have come. @throws CoreError where some have not. */
  finish(): Promise<AnalysisSums>
  /** Frees what it holds; idempotent. Must not be called while another call is running. */
  close(): void
}

/** The bytes that an analysis holds beside the rows: the factors, their bases and projections. */
export function analysisMemory({ rank, rows, cols }: { rank: number; rows: number; cols: number }): number {
  return 8 * rank * (rows + 3 * cols) + 4 * rank * (rows + cols)
}

/** Opens a tensor for analysis. @throws CoreError where sizes disagree or a factor cannot be used. */
export function openAnalysis(engine: Engine, library: AnalysisLibrary, spec: AnalysisSpec): TensorAnalysis {
  const handle = library.create(CORE_DTYPES[spec.baseDtype] ?? -1, CORE_DTYPES[spec.dtype] ?? -1, spec.rows, spec.cols)
  let merge: TensorMerge | null = null
  const close = () => {
    if (merge === null) return
    merge.finish()
    merge = null
    library.free(handle)
  }
  try {
    for (const one of spec.contributions) {
      if (one.kind !== 'product') throw new CoreError('invalid', `a contribution of the kind ${one.kind} has no low rank to analyze`)
      library.add(handle, matrix(one.left), matrix(one.right), one.rank, one.scale)
    }
    if (spec.sample !== null) library.sample(handle, spec.sample.rows, spec.sample.bytes)
    merge = openTensor(engine, spec)
  } catch (error) {
    library.free(handle)
    throw error
  }
  return {
    async addRows(firstRow, rowCount, base, target) {
      if (merge === null) throw new CoreError('invalid', 'addRows after close')
      await library.rows(handle, engine.path, engine.threads, firstRow, rowCount, base, target)
      await merge.mergeRows(firstRow, rowCount, target, target)
    },
    async finish() {
      if (merge === null) throw new CoreError('invalid', 'finish after close')
      const sums = await library.finish(handle, engine.path)
      const rows = rowMatch(library, handle, spec)
      const { patchNorm, residualNorm, nonFinite } = merge.finish()
      merge = null
      library.free(handle)
      return { ...expected(sums, spec), mergedSquared: patchNorm ** 2, lostSquared: residualNorm ** 2, nonFinite, ...rows }
    },
    close,
  }
}

function matrix({ bytes, dtype, offset, strides }: FactorBytes): NativeMatrix {
  return { bytes, dtype: CORE_DTYPES[dtype] ?? -1, offset, strides }
}

/** A drift without direction puts `rank/size` of its square into any subspace. */
function expected({ readRank, writeRank, ...sums }: NativeSums, { rows, cols }: AnalysisSpec) {
  return { ...sums, driftReadExpected: (sums.driftSquared * readRank) / cols, driftWriteExpected: (sums.driftSquared * writeRank) / rows }
}

/** Rows that are zero in either version have no direction, and are left out. */
function rowMatch(library: AnalysisLibrary, handle: AnalysisHandle, { sample }: AnalysisSpec) {
  const total = { rowsSampled: 0, rowsElsewhere: 0, sameRowCosine: 0, bestOtherCosine: 0 }
  const count = sample?.rows.length ?? 0
  const matches = count === 0 ? new Float64Array(0) : library.matches(handle, count)
  for (let k = 0; k < count; k++) {
    const [same, best] = [matches[3 * k]!, matches[3 * k + 1]!]
    if (Number.isNaN(same) || Number.isNaN(best)) continue
    total.rowsSampled++
    if (best > same) total.rowsElsewhere++
    total.sameRowCosine += same
    total.bestOtherCosine += best
  }
  return total
}
