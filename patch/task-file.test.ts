import { expect, it } from 'vitest'
import { MAX_YAML_LENGTH, PlainYamlError } from './plain-yaml.ts'
import { isTaskName, readTaskFile } from './task-file.ts'

const TASK = `
task: triage
dataset_path: lab/notes
test_split: test
output_type: multiple_choice
doc_to_text: "{{note}}\\nUrgency:"
doc_to_target: "{{label}}"
doc_to_choice: [low, high]
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata: {version: 1.0}
`

it('gives the name of a task', () => {
  expect(readTaskFile(TASK)).toEqual({ task: 'triage' })
  expect(readTaskFile('task: a\ndataset_path: aps/super_glue')).toEqual({ task: 'a' })
})

it.each([
  ['code by a tag', `${TASK}\nprocess_docs: !function utils.run`, /tag !function/],
  ['code by a tag deep inside', TASK.replace('metric: acc', 'metric: !function utils.run'), /tag !function/],
  ['a tag of Python', TASK.replace('{version: 1.0}', '!!python/object/apply:os.system [id]'), /tag/],
  ['another file', 'task: a\ninclude: /etc/passwd', /key "include"/],
  ['settings of the loader', 'task: a\ndataset_kwargs: {data_files: /etc/passwd}', /key "dataset_kwargs"/],
  ['a builder that reads files', 'task: a\ndataset_path: json', /not a dataset of the Hub/],
  ['a path', 'task: a\ndataset_path: /srv/data', /not a dataset of the Hub/],
  ['a path upwards', 'task: a\ndataset_path: ../data', /not a dataset of the Hub/],
  ['a metric of the Hub', TASK.replace('metric: acc', 'metric: someone/metric'), /names "someone\/metric"/],
  ['a metric fetched as code', TASK.replace('aggregation: mean', 'hf_evaluate: true'), /hf_evaluate/],
  ['metrics in another form', 'task: a\nmetric_list: acc', /metric_list/],
  ['no name', 'dataset_path: lab/notes', /needs a name/],
  ['a name that is a path', 'task: ../../task', /needs a name/],
  ['one key twice', 'task: a\ntask: b', /not YAML/],
  ['no mapping', '- a', /not a mapping/],
  ['nothing', '', /not a mapping/],
  ['what is no YAML', 'task: [', /not YAML/],
  ['too much', `task: a\ndescription: ${'x'.repeat(MAX_YAML_LENGTH)}`, /at most/],
])('refuses %s', (_, text, message) => {
  expect(() => readTaskFile(text)).toThrow(PlainYamlError)
  expect(() => readTaskFile(text)).toThrow(message)
})

it('a bomb of aliases is refused, not unfolded', () => {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]', ...Array.from({ length: 12 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(10).fill(`*a${i}`).join(', ')}]`)]
  expect(() => readTaskFile(lines.join('\n'))).toThrow(PlainYamlError)
})

it('a task is looked up by a name, never by a path', () => {
  expect(['boolq', 'mmlu_abstract_algebra', 'gsm8k-cot.v1'].every(isTaskName)).toBe(true)
  expect(['', '../x', 'a/b', '.x', 'a b', 'x'.repeat(201)].some(isTaskName)).toBe(false)
})
