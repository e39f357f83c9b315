import type { ComparedEvaluation } from './comparison.ts'
import type { EvaluationSpec, TaskScore } from './evaluation.ts'
import { sampleDigest } from './sample-manifests.ts'

/** Hand-made evaluations for tests. */

export function sampleScore(changes: Partial<TaskScore> = {}): TaskScore {
  return { task: 'boolq', version: '2.0', metric: 'acc', filter: 'none', value: 0.5, stderr: 0.02, samples: 400, higher_is_better: true, ...changes }
}

let made = 0

/** Of `lab/m@<target>`, alone or with `lab/p@<patch>` that was trained on `lab/m@<base>`; each is newer than the one before. */
export function sampleEvaluation({ target, patch = null, spec = {}, scores = [sampleScore()] }: { target: string; patch?: readonly [version: string, base: string] | null; spec?: Partial<EvaluationSpec>; scores?: readonly TaskScore[] }): ComparedEvaluation {
  made += 1
  const measured = { by: 'local', at: new Date(Date.UTC(2026, 0, 1) + made * 1000).toISOString(), versions: {}, device: 'cpu', seconds: 1 }
  return {
    id: `e${made}`,
    target: { reference: `lab/m@${target}` },
    patch: patch === null ? null : { reference: `lab/p@${patch[0]}`, base: { reference: `lab/m@${patch[1]}` } },
    spec: { how: patch === null ? 'plain' : 'merged', tasks: ['boolq'], taskFile: null, data: null, num_fewshot: null, batch_size: 8, limit: null, seed: 1, ...spec },
    result: { format: 'portllm.evaluation/1', target: sampleDigest(target), patch: null, derivation: null, measured, scores },
  }
}
