import { isAlias, isNode, parseDocument, visit } from 'yaml'

/** Longest task file in characters. */
export const MAX_TASK_FILE_LENGTH = 64 * 1024

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
/** Builders of the datasets library that read whatever path they are given. */
const FILE_BUILDERS: ReadonlySet<string> = new Set([
  'json', 'csv', 'text', 'parquet', 'arrow', 'xml', 'pandas', 'sql', 'generator', 'spark', 'cache', 'webdataset', 'imagefolder', 'audiofolder', 'videofolder', 'pdffolder', 'hdf5', 'lance', 'niftifolder', 'eval',
])
const TASK_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$/
const HUB_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*(\/[A-Za-z0-9][A-Za-z0-9_.-]*)?$/

export class TaskFileError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'TaskFileError'
  }
}

/** A name can be looked up; anything with a slash would be a file of the runner's. */
export function isTaskName(name: string): boolean {
  return TASK_NAME.test(name)
}

/**
 * The name of the task in a YAML file of one's own. The file is a stranger's and the runner reads it, so it may hold data
 * and templates, but name no code and no path. Throws TaskFileError.
 */
export function readTaskFile(text: string): { task: string } {
  if (text.length > MAX_TASK_FILE_LENGTH) throw new TaskFileError(`The task file has ${text.length} characters; at most ${MAX_TASK_FILE_LENGTH} are read.`)
  const document = parseDocument(text, { uniqueKeys: true })
  const [error] = document.errors
  if (error !== undefined) throw new TaskFileError(`The task file is not YAML: ${error.message}`)
  visit(document, (_, node) => {
    if (isAlias(node)) throw new TaskFileError('The task file holds an alias (*). Write the value again where it is meant.')
    if (isNode(node) && node.tag !== undefined) throw new TaskFileError(`The task file holds the tag ${node.tag}: a task sent to a registry may not name code. Say it as a template.`)
  })
  const task: unknown = document.toJS()
  if (typeof task !== 'object' || task === null || Array.isArray(task)) throw new TaskFileError('The task file is not a mapping of keys as lm-eval has them (task, dataset_path, doc_to_text, …).')
  const unknown = Object.keys(task).find((key) => !KEYS.has(key))
  if (unknown !== undefined) throw new TaskFileError(`The task file has the key ${JSON.stringify(unknown)}. A task sent to a registry may have: ${[...KEYS].join(', ')}.`)
  const { task: name, dataset_path: path, metric_list: metrics } = task as Record<string, unknown>
  if (typeof name !== 'string' || !isTaskName(name)) throw new TaskFileError('The task file needs a name under the key task: letters, digits, ".", "_" and "-".')
  checkDataset(path)
  checkMetrics(metrics)
  return { task: name }
}

function checkDataset(path: unknown): void {
  if (path === undefined) return
  if (typeof path !== 'string' || !HUB_NAME.test(path)) throw new TaskFileError('The dataset_path of the task file is not a name of the Hub, such as super_glue or allenai/winogrande.')
  if (FILE_BUILDERS.has(path)) throw new TaskFileError(`The dataset_path ${path} would read files of the runner. Name a dataset of the Hub, or ask for data of your organization and leave dataset_path out.`)
}

function checkMetrics(metrics: unknown): void {
  if (metrics === undefined) return
  const names: unknown[] = Array.isArray(metrics) ? metrics.map((entry: unknown) => (typeof entry === 'object' && entry !== null && 'metric' in entry ? entry.metric : null)) : [null]
  const wrong = names.find((name) => typeof name !== 'string' || !METRICS.has(name))
  if (wrong !== undefined) throw new TaskFileError(`The metric_list of the task file names ${JSON.stringify(wrong)}. A task sent to a registry may use: ${[...METRICS].join(', ')}.`)
  if (Array.isArray(metrics) && metrics.some((entry: object) => 'hf_evaluate' in entry)) throw new TaskFileError('The metric_list of the task file asks for hf_evaluate, which fetches code. Leave it out.')
}
