import type { Analysis } from '../../patch/analysis.ts'
import type { PortRun } from '../../patch/transfer.ts'
import type { JournalRow } from './journal.ts'
import type { Plan } from './plan.ts'
import type { Cost } from './portllm-command.ts'
import type { Score, StepResults } from './run-step.ts'
import { mean, median, rankCorrelation, sum } from './statistics.ts'
import type { Step, StepWork } from './steps.ts'

/** What is known of one task on one model of the chain. Accuracies; `null`, or a seed that is missing: not measured yet. */
export interface Comparison {
  readonly task: string
  /** Evolutions since the pretrained model. */
  readonly model: number
  readonly alone: Score | null
  /** The patch that was trained on the pretrained model, one for each seed. */
  readonly ported: readonly SeedScore[]
  /** Patches that were trained on this model; of the pretrained model, the same ones. */
  readonly fresh: readonly SeedScore[]
}

export interface SeedScore extends Score {
  readonly seed: number
}

/** One patch on one evolved model: what it lost by the port, and what `portllm analyze` says of it. */
export interface Port {
  readonly task: string
  readonly seed: number
  readonly model: number
  /** Accuracy on the evolved model less accuracy on its own base. */
  readonly change: number
  /** What the patch adds to its own base, and the standard error of that. */
  readonly gain: number
  readonly gainError: number | null
  /** (ported − alone) / gain: 1 where all of it is kept. */
  readonly kept: number
  readonly figures: Figures
}

const FIGURES = {
  'relative drift': ({ relativeDrift }) => relativeDrift,
  'read drift': ({ readDrift }) => readDrift,
  'write drift': ({ writeDrift }) => writeDrift,
  interference: ({ interference }) => interference,
  'patch over drift': ({ patchOverDrift }) => patchOverDrift,
  'rounding loss': ({ roundingLoss }) => roundingLoss,
} as const satisfies Record<string, (figures: Analysis['whole']) => number | null>
export type FigureName = keyof typeof FIGURES
export type Figures = Readonly<Record<FigureName, number | null>>

export interface Prediction {
  readonly figure: FigureName
  readonly ports: number
  /** Spearman's, with the change of the score and with the part of the gain that is kept. */
  readonly change: number | null
  readonly kept: number | null
}

export interface Costs {
  readonly runs: number
  /** Medians. */
  readonly cost: Cost
  /** Of all runs together, all cores. */
  readonly device_hours: number
}

export interface Findings {
  readonly done: number
  readonly steps: number
  readonly comparisons: readonly Comparison[]
  readonly ports: readonly Port[]
  readonly predictions: readonly Prediction[]
  readonly costs: { readonly finetune: Costs | null; readonly port: Costs | null; readonly evolve: Costs | null; readonly analyze: Costs | null }
}

/** What the results so far say. */
export function findings(plan: Plan, steps: readonly Step[], rows: ReadonlyMap<string, JournalRow>): Findings {
  const done = steps.flatMap((step) => {
    const row = rows.get(step.key)
    return row === undefined ? [] : [{ work: step.work, result: row.result }]
  })
  function results<K extends StepWork['kind']>(kind: K) {
    return done.filter(({ work }) => work.kind === kind) as { work: Extract<StepWork, { kind: K }>; result: StepResults[K] }[]
  }
  const [alone, scores, analyses] = [results('alone'), results('score'), results('analyze')]
  const aloneOf = (task: string, model: number) => alone.find(({ work }) => work.model === model)?.result.scores.find((score) => score.task === task) ?? null
  const scoresOf = (task: string, from: number, model: number): SeedScore[] => scores.filter(({ work }) => work.task === task && work.from === from && work.model === model).map(({ work, result }) => ({ seed: work.seed, ...result.scores[0]! }))

  const models = Array.from({ length: plan.evolutions.length + 1 }, (_, model) => model)
  const comparisons = Object.keys(plan.tasks).flatMap((task) => models.map((model) => ({ task, model, alone: aloneOf(task, model), ported: scoresOf(task, 0, model), fresh: scoresOf(task, model, model) })))
  const ports = analyses.flatMap(({ work: { task, seed, model }, result }): Port[] => {
    const own = scoresOf(task, 0, 0).find((score) => score.seed === seed)
    const ported = scoresOf(task, 0, model).find((score) => score.seed === seed)
    const [base, target] = [aloneOf(task, 0), aloneOf(task, model)]
    if (own === undefined || ported === undefined || base === null || target === null) return []
    const figures = Object.fromEntries(Object.entries(FIGURES).map(([name, figure]) => [name, figure(result.whole)])) as Figures
    const gain = own.value - base.value
    const gainError = own.stderr === null || base.stderr === null ? null : Math.hypot(own.stderr, base.stderr)
    return [{ task, seed, model, change: ported.value - own.value, gain, gainError, kept: (ported.value - target.value) / gain, figures }]
  })
  return {
    done: done.length,
    steps: steps.length,
    comparisons,
    ports,
    predictions: (Object.keys(FIGURES) as FigureName[]).map((figure) => predict(figure, ports)),
    costs: {
      finetune: costs(results('finetune').map(({ result }) => result)),
      port: costs(scores.filter(({ work }) => work.from === 0 && work.model > 0).map(({ result }) => result.merge)),
      evolve: costs(results('evolve').map(({ result }) => result)),
      analyze: costs(analyses.map(({ result }) => result.cost)),
    },
  }
}

/** The ports as the calibration of resolutions takes them. */
export function portRuns({ ports }: Pick<Findings, 'ports'>): PortRun[] {
  return ports.map(({ task, seed, model, gain, gainError, kept, figures }) => ({ task, seed, evolutions: model, readDrift: figures['read drift'], gain, gainError, kept: Number.isFinite(kept) ? kept : null }))
}

function predict(figure: FigureName, ports: readonly Port[]): Prediction {
  const measured = ports.flatMap((port) => {
    const value = port.figures[figure]
    return value === null ? [] : [{ ...port, value }]
  })
  const pairs = (outcome: 'change' | 'kept') => measured.filter((port) => Number.isFinite(port[outcome])).map((port) => [port.value, port[outcome]] as const)
  return { figure, ports: measured.length, change: rankCorrelation(pairs('change')), kept: rankCorrelation(pairs('kept')) }
}

function costs(measured: readonly Cost[]): Costs | null {
  if (measured.length === 0) return null
  const of = (key: keyof Cost) => median(measured.map((cost) => cost[key]))
  return { runs: measured.length, cost: { wall_seconds: of('wall_seconds'), device_seconds: of('device_seconds'), peak_memory_bytes: of('peak_memory_bytes') }, device_hours: sum(measured.map(({ device_seconds }) => device_seconds)) / 3_600 }
}

/** Mean over the seeds with the standard error of the mean: of the questions, which are the same for all seeds. Null where nothing is measured. */
export function meanScore(scores: readonly Score[]): { readonly value: number; readonly stderr: number | null; readonly seeds: number } | null {
  if (scores.length === 0) return null
  const errors = scores.flatMap(({ stderr }) => stderr ?? [])
  return { value: mean(scores.map(({ value }) => value)), stderr: errors.length === 0 ? null : mean(errors), seeds: scores.length }
}
