import { canonicalJson, sha256Hex } from './derivation.ts'

/** `plain`: the target alone; `merged`: the patch merged into it; `peft`: the patch applied by PEFT while the target runs. */
export const EVALUATION_HOWS = ['plain', 'merged', 'peft'] as const
export type EvaluationHow = (typeof EVALUATION_HOWS)[number]

/** How a model is evaluated; the words are lm-eval's. */
export interface EvaluationSpec {
  readonly how: EvaluationHow
  /** Names of lm-eval's tasks, of PortLLM's own, or of the task in `taskFile`; sorted. */
  readonly tasks: readonly string[]
  /** YAML of a task of one's own (task-file.ts). */
  readonly taskFile: string | null
  /** `organization/name` of a folder of the runner's; null: the tasks' own data. */
  readonly data: string | null
  /** Null: as each task says. */
  readonly num_fewshot: number | null
  readonly batch_size: number
  /** Questions of each task; null: all of them. */
  readonly limit: number | null
  readonly seed: number
}

/** One figure of one task. */
export interface TaskScore {
  readonly task: string
  /** Scores of different versions of a task cannot be compared. */
  readonly version: string
  readonly metric: string
  readonly filter: string
  readonly value: number
  /** Standard error; null where the metric has none. */
  readonly stderr: number | null
  /** Questions. */
  readonly samples: number
  readonly higher_is_better: boolean
}

/** The finished measurement. */
export interface EvaluationResult {
  readonly format: 'portllm.evaluation/1'
  /** `sha256:…` of the target and, where there is one, of the patch. */
  readonly target: string
  readonly patch: string | null
  /** Id of the merged model. */
  readonly derivation: string | null
  readonly measured: {
    /** Who says so: the address of a registry. */
    readonly by: string
    readonly at: string
    /** Of lm-eval and what it stands on. */
    readonly versions: Readonly<Record<string, string>>
    readonly device: string
    readonly seconds: number
  }
  readonly scores: readonly TaskScore[]
}

/** SHA-256 of what is evaluated and how, in hex: the same question has one answer. */
export async function evaluationIdentity({ target, patch, spec }: { target: string; patch: string | null; spec: EvaluationSpec }): Promise<string> {
  return sha256Hex(canonicalJson({ format: 'portllm.evaluation/1', target, patch, spec }))
}

/** Two scores may stand side by side where this is equal: same task in the same version, same questions, same figure. */
export function comparisonKey({ task, version, metric, filter }: Pick<TaskScore, 'task' | 'version' | 'metric' | 'filter'>, { num_fewshot, limit, taskFile, data }: EvaluationSpec): string {
  return canonicalJson({ task, version, metric, filter, num_fewshot, limit, taskFile, data })
}
