import type { ComparedEvaluation } from './comparison.ts'
import { comparisonKey, type EvaluationHow, type EvaluationSpec, type TaskScore } from './evaluation.ts'

export interface MatrixCell extends Pick<TaskScore, 'value' | 'stderr' | 'samples'> {
  readonly how: EvaluationHow
  readonly evaluation: string
}

/** One figure of one task over patches and model versions; all its cells answer the same question. */
export interface ScoreMatrix extends Pick<TaskScore, 'task' | 'version' | 'metric' | 'filter' | 'higher_is_better'>, Pick<EvaluationSpec, 'num_fewshot' | 'limit'> {
  /** References of model versions: those that the patches were trained on first. */
  readonly targets: readonly string[]
  /** The model alone first (`patch` null), then each patch version; cells in the order of `targets`, null where nothing was measured. */
  readonly rows: readonly { readonly patch: string | null; readonly cells: readonly (MatrixCell | null)[] }[]
}

/**
 * Patch × model version, one matrix for each question. Of several evaluations of a cell one of the merged model wins over
 * PEFT's, then the newest. Questions that were put to no patch are left out.
 */
export function scoreMatrices(evaluations: readonly ComparedEvaluation[]): ScoreMatrix[] {
  const cells = new Map<string, { score: TaskScore; spec: EvaluationSpec; byPlace: Map<string, MatrixCell> }>()
  for (const { id, target, patch, spec, result } of evaluations.toSorted(weakestFirst)) {
    for (const score of result.scores) {
      const key = comparisonKey(score, spec)
      const entry = cells.get(key) ?? { score, spec, byPlace: new Map() }
      entry.byPlace.set(place(patch?.reference ?? null, target.reference), { value: score.value, stderr: score.stderr, samples: score.samples, how: spec.how, evaluation: id })
      cells.set(key, entry)
    }
  }
  const bases = new Set(evaluations.flatMap(({ patch }) => patch?.base.reference ?? []))
  const targets = [...new Set(evaluations.map(({ target }) => target.reference))].sort((a, b) => Number(bases.has(b)) - Number(bases.has(a)) || (a < b ? -1 : 1))
  const patches = [...new Set(evaluations.flatMap(({ patch }) => patch?.reference ?? []))].sort()
  return [...cells.values()]
    .map(({ score: { task, version, metric, filter, higher_is_better }, spec: { num_fewshot, limit }, byPlace }) => {
      const rows = [null, ...patches].map((patch) => ({ patch, cells: targets.map((target) => byPlace.get(place(patch, target)) ?? null) }))
      const asked = rows.filter(({ patch, cells: row }) => patch === null || row.some((cell) => cell !== null))
      return { task, version, metric, filter, higher_is_better, num_fewshot, limit, targets, rows: asked }
    })
    .filter(({ rows }) => rows.length > 1)
    .sort((a, b) => (`${a.task} ${a.metric} ${a.filter} ${a.version}` < `${b.task} ${b.metric} ${b.filter} ${b.version}` ? -1 : 1))
}

function place(patch: string | null, target: string): string {
  return JSON.stringify([patch, target])
}

function weakestFirst(a: ComparedEvaluation, b: ComparedEvaluation): number {
  return Number(a.spec.how === 'merged') - Number(b.spec.how === 'merged') || (a.result.measured.at < b.result.measured.at ? -1 : 1)
}
