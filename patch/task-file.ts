import { datasetProblem } from './hub-dataset.ts'
import { parsePlainYaml, PlainYamlError } from './plain-yaml.ts'

/** What a task of one's own may say: lm-eval's keys without those that name code, other files, or settings of its loader. */
const KEYS: ReadonlySet<string> = new Set([
  'task', 'task_alias', 'dataset_path', 'dataset_name', 'training_split', 'validation_split', 'test_split', 'fewshot_split', 'output_type',
  'doc_to_text', 'doc_to_target', 'doc_to_choice', 'description', 'target_delimiter', 'fewshot_delimiter', 'num_fewshot', 'generation_kwargs',
  'repeats', 'filter_list', 'metric_list', 'metadata',
])
/** lm-eval's own; any other name would be fetched from the Hub as code. */
const METRICS: ReadonlySet<string> = new Set([
  'acc', 'acc_norm', 'acc_mutual_info', 'exact_match', 'perplexity', 'word_perplexity', 'byte_perplexity', 'bits_per_byte', 'mcc', 'f1', 'bleu', 'chrf', 'ter', 'brier_score',
])
const TASK_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$/
const WHAT = 'The task file'

/** A name can be looked up; anything with a slash would be a file of the runner's. */
export function isTaskName(name: string): boolean {
  return TASK_NAME.test(name)
}

/**
 * The name of the task in a YAML file of one's own. The file is a stranger's and the runner reads it, so it may hold data
 * and templates, but name no code and no path. Throws PlainYamlError.
 */
export function readTaskFile(text: string): { task: string } {
  const task = parsePlainYaml(text, WHAT)
  const unknown = Object.keys(task).find((key) => !KEYS.has(key))
  if (unknown !== undefined) throw new PlainYamlError(`${WHAT} has the key ${JSON.stringify(unknown)}. One sent to a registry may have: ${[...KEYS].join(', ')}.`)
  const { task: name, dataset_path: path, metric_list: metrics } = task
  if (typeof name !== 'string' || !isTaskName(name)) throw new PlainYamlError(`${WHAT} needs a name under the key task: letters, digits, ".", "_" and "-".`)
  const problem = path === undefined ? null : datasetProblem(path)
  if (problem !== null) throw new PlainYamlError(`The dataset_path of the task file cannot be used: ${problem}`)
  if (metrics !== undefined) checkMetrics(metrics)
  return { task: name }
}

function checkMetrics(metrics: unknown): void {
  const entries: unknown[] = Array.isArray(metrics) ? metrics : [metrics]
  for (const entry of entries) {
    const metric: unknown = typeof entry === 'object' && entry !== null && 'metric' in entry ? entry.metric : null
    if (typeof metric !== 'string' || !METRICS.has(metric)) throw new PlainYamlError(`The metric_list of the task file names ${JSON.stringify(metric)}. One sent to a registry may use: ${[...METRICS].join(', ')}.`)
    if ('hf_evaluate' in (entry as object)) throw new PlainYamlError('The metric_list of the task file asks for hf_evaluate, which fetches code. Leave it out.')
  }
}
