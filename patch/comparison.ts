import semver from 'semver'
import { comparisonKey, type EvaluationResult, type EvaluationSpec, type TaskScore } from './evaluation.ts'

/** A finished evaluation, by the references of what it is about. */
export interface ComparedEvaluation {
  readonly id: string
  readonly target: { readonly reference: string }
  readonly patch: { readonly reference: string; readonly base: { readonly reference: string } } | null
  readonly spec: EvaluationSpec
  readonly result: EvaluationResult
}

/** What stands side by side, in this order. */
export const BAR_KINDS = ['base', 'evolved', 'ported', 'retrained'] as const
export type BarKind = (typeof BAR_KINDS)[number]

export interface Bar extends Pick<TaskScore, 'value' | 'stderr' | 'samples'> {
  readonly kind: BarKind
  /** What was evaluated: `org/model@2`, or `org/patch@1.0.0 on org/model@2`. */
  readonly subject: string
  readonly evaluation: string
}

/** One figure of one task; all its bars answer the same question. */
export interface ComparisonGroup extends Pick<TaskScore, 'task' | 'version' | 'metric' | 'filter' | 'higher_is_better'>, Pick<EvaluationSpec, 'num_fewshot' | 'limit'> {
  readonly bars: readonly Bar[]
}

/** How a ported patch does on a target, beside the base, the target alone, and a patch of the same name that was trained on the target. */
export interface Comparison {
  readonly patch: string
  readonly base: string
  readonly target: string
  readonly groups: readonly ComparisonGroup[]
}

/** One comparison for each patch and each target that it was ported to; of a patch the greatest version. Newer evaluations win. */
export function compareEvaluations(evaluations: readonly ComparedEvaluation[]): Comparison[] {
  const byTime = evaluations.toSorted((a, b) => (a.result.measured.at < b.result.measured.at ? -1 : 1))
  const ported = byTime.filter(({ patch, target }) => patch !== null && patch.base.reference !== target.reference)
  const pairs = Map.groupBy(ported, ({ patch, target }) => JSON.stringify([familyOf(patch!.reference), target.reference]))
  const comparisons = [...pairs.values()].map((of) => {
    const greatest = of.map(({ patch }) => patch!).reduce((a, b) => (semver.gte(versionOf(a.reference), versionOf(b.reference)) ? a : b))
    return compare(byTime, greatest.reference, greatest.base.reference, of[0]!.target.reference)
  })
  return comparisons.sort((a, b) => (`${a.target} ${a.patch}` < `${b.target} ${b.patch}` ? -1 : 1))
}

function compare(byTime: readonly ComparedEvaluation[], patch: string, base: string, target: string): Comparison {
  const kindOf = (evaluation: ComparedEvaluation): BarKind | null => {
    if (evaluation.patch === null) return evaluation.target.reference === base ? 'base' : evaluation.target.reference === target ? 'evolved' : null
    if (evaluation.target.reference !== target) return null
    if (evaluation.patch.reference === patch) return 'ported'
    return familyOf(evaluation.patch.reference) === familyOf(patch) && evaluation.patch.base.reference === target ? 'retrained' : null
  }
  const groups = new Map<string, { group: Omit<ComparisonGroup, 'bars'>; bars: Map<BarKind, Bar> }>()
  for (const evaluation of byTime) {
    const kind = kindOf(evaluation)
    if (kind === null) continue
    const { num_fewshot, limit } = evaluation.spec
    for (const { task, version, metric, filter, higher_is_better, value, stderr, samples } of evaluation.result.scores) {
      const key = comparisonKey({ task, version, metric, filter }, evaluation.spec)
      const entry = groups.get(key) ?? { group: { task, version, metric, filter, higher_is_better, num_fewshot, limit }, bars: new Map() }
      entry.bars.set(kind, { kind, subject: subjectOf(evaluation), evaluation: evaluation.id, value, stderr, samples })
      groups.set(key, entry)
    }
  }
  const shown = [...groups.values()].filter(({ bars }) => bars.has('ported'))
  return { patch, base, target, groups: shown.map(({ group, bars }) => ({ ...group, bars: BAR_KINDS.flatMap((kind) => bars.get(kind) ?? []) })).sort(byTask) }
}

function subjectOf({ patch, target }: ComparedEvaluation): string {
  return patch === null ? target.reference : `${patch.reference} on ${target.reference}`
}

function byTask(a: ComparisonGroup, b: ComparisonGroup): number {
  return `${a.task} ${a.metric} ${a.filter} ${a.version}` < `${b.task} ${b.metric} ${b.filter} ${b.version}` ? -1 : 1
}

function familyOf(reference: string): string {
  return reference.slice(0, reference.lastIndexOf('@'))
}

function versionOf(reference: string): string {
  return reference.slice(reference.lastIndexOf('@') + 1)
}
