import { readFile } from 'node:fs/promises'
import type { EvaluationSpec } from '../patch/evaluation.ts'
import { formatReference, parseReference } from '../patch/reference.ts'
import type { Job, Registry } from './client.ts'
import { evaluationSource } from './evaluation-source.ts'
import { formatFields, formatTable } from './format.ts'
import { getInto } from './get.ts'
import { requireSuccess, waitForJob } from './job-wait.ts'
import { modelVersionName } from './references.ts'
import { formatScore } from './scores.ts'
import type { Answer, Session } from './session.ts'

/** Parallel downloads. */
const CONCURRENCY = 4

export interface EvaluateJob extends Omit<EvaluationSpec, 'how' | 'taskFile'> {
  /** `org/name@version`. */
  readonly model: string
  /** `org/name[@version, range or tag][:weight]`, in the order of summation. */
  readonly patches: readonly string[]
  readonly how: 'merged' | 'peft' | null
  /** Path of a YAML file of one's own. */
  readonly taskFile: string | null
  readonly wait: boolean
  /** Folder to make of what was recorded of each question; null for none. */
  readonly output: string | null
  readonly force: boolean
}

/** Has the registry evaluate a model of its own, and waits for the scores. */
export async function evaluateInRegistry(session: Session, { model, patches, taskFile, tasks, wait, output, force, ...rest }: EvaluateJob): Promise<Answer> {
  for (const patch of patches) parseReference(patch)
  const registry = await session.connect()
  const { organization, name, version } = await modelVersionName(registry, model)
  const target = formatReference({ organization, name, selector: version })
  const asked = await registry.requestEvaluation({ target, patch: null, patches: [...patches], tasks: [...tasks], taskFile: taskFile === null ? null : await readFile(taskFile, 'utf8'), ...rest })
  if ('evaluation' in asked && !wait) return pending(asked.evaluation, asked.job as Job)
  const evaluation = 'evaluation' in asked ? await finished(registry, asked.evaluation, asked.job as Job, session.quiet) : asked
  const fetched = output === null ? null : await getInto(session, registry, evaluationSource(registry, evaluation), output, { force, concurrency: CONCURRENCY })
  const { spec, result, files } = evaluation
  const { measured, scores } = result!
  const fields = formatFields([
    ['evaluation', evaluation.id], ['target', evaluation.target.reference], ...evaluation.patches.map(({ reference, weight }) => ['patch', `${reference}${weight === 1 ? '' : ` with weight ${weight}`} (${spec.how})`] as const),
    ['measured by', `${measured.by}, ${measured.at}, on ${measured.device} in ${measured.seconds.toFixed(1)} s`], ['recorded', files.map(({ path }) => path).join(', ')], ['output', fetched?.output],
  ])
  const table = formatTable(['TASK', 'VERSION', 'FILTER', 'METRIC', 'SCORE', 'QUESTIONS'], scores.map((score) => [score.task, score.version, score.filter, `${score.metric} ${score.higher_is_better ? '↑' : '↓'}`, formatScore(score), String(score.samples)]))
  return { json: fetched === null ? evaluation : { ...evaluation, output: fetched.output, fetchedBytes: fetched.fetchedBytes }, text: `${fields}\n\n${table}` }
}

async function finished(registry: Registry, id: string, job: Job, quiet: boolean) {
  requireSuccess(await waitForJob(registry, job.id, 'Evaluation', quiet))
  return registry.getEvaluation(id)
}

function pending(evaluation: string, job: Job): Answer {
  return { json: { evaluation, job }, text: `${formatFields([['evaluation', evaluation], ['job', job.id]])}\nWait for it with: portllm jobs wait ${job.id}` }
}
