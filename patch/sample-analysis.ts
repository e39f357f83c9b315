import { analysisOf, type Analysis, type AnalysisSums, type MeasuredTensor } from './analysis.ts'
import { sampleDigest } from './sample-manifests.ts'

/** Hand-made sums and analyses for tests. */

/** Sums of a tensor with the relative drift 0.2, the interference −0.5 and so on, as if measured. */
export function sampleSums(changes: Partial<AnalysisSums> = {}): AnalysisSums {
  return {
    baseSquared: 100, driftSquared: 4, patchSquared: 9, patchSpectral: 2, inner: -3,
    driftReadSquared: 1, driftReadExpected: 0.25, baseReadSquared: 16, driftWriteSquared: 0.5, driftWriteExpected: 1, baseWriteSquared: 50,
    mergedSquared: 9, lostSquared: 0.09, nonFinite: 0, rowsSampled: 4, rowsElsewhere: 1, sameRowCosine: 3.2, bestOtherCosine: 1, ...changes,
  }
}

export function sampleTensor(name: string, sums: AnalysisSums = sampleSums()): MeasuredTensor {
  return { name, rows: 8, cols: 16, rank: 2, sums }
}

export function sampleAnalysis(tensors: readonly MeasuredTensor[]): Analysis {
  const measured = { by: 'local', at: '2026-01-01T00:00:00.000Z', engine: { name: 'portllm-core', version: '1', path: 'scalar' }, seconds: 1 }
  return analysisOf({ patch: sampleDigest('patch'), base: sampleDigest('base'), target: sampleDigest('target'), measured, tensors, unmeasured: [] })
}
