/** How a row is written in each kind of file that trainings read (gpu-runner/python/portllm_research/local_data.py). */
const DATA = /^(?:.*\/)?([^/]+)\.(jsonl|json|csv|parquet)$/
/** What may lie beside the data: words about them. */
const ABOUT = /(^|\/)(README\.md|LICEN[CS]E(\.md|\.txt)?|NOTICE(\.md|\.txt)?|CITATION\.cff)$/

export interface DatasetProblem {
  readonly code: 'not-data' | 'no-data' | 'split-twice'
  readonly message: string
  readonly file?: string
}

/**
 * What is wrong with the files of a dataset: each is a split, `<split>.jsonl`, `.json`, `.csv` or `.parquet`, alone or in a
 * folder for each of several datasets, or says something about them. Empty where nothing is.
 */
export function datasetProblems(paths: readonly string[]): DatasetProblem[] {
  const problems: DatasetProblem[] = []
  const splits = new Map<string, string>()
  for (const path of paths) {
    const split = DATA.exec(path)
    if (split === null) {
      if (!ABOUT.test(path)) problems.push({ code: 'not-data', file: path, message: `${path} is no data: a dataset holds <split>.jsonl, .json, .csv or .parquet, and README.md or a licence beside them. Leave it out.` })
      continue
    }
    const place = path.slice(0, path.lastIndexOf('.'))
    const other = splits.get(place)
    if (other !== undefined) problems.push({ code: 'split-twice', file: path, message: `${path} and ${other} are the same split ${split[1]}. Keep one of them.` })
    else splits.set(place, path)
  }
  if (splits.size === 0) problems.push({ code: 'no-data', message: 'There are no data: a dataset needs train.jsonl, or another <split>.jsonl, .json, .csv or .parquet.' })
  return problems
}
