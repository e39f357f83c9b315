import { expect, it } from 'vitest'
import { datasetProblems } from './dataset-files.ts'

it.each([
  [['train.jsonl']], [['train.jsonl', 'validation.csv', 'README.md', 'LICENSE']], [['notes/train.parquet', 'owner/letters/train.json', 'letters/README.md']],
])('takes %j', (paths) => {
  expect(datasetProblems(paths)).toEqual([])
})

it.each([
  [['README.md'], ['no-data']], [[], ['no-data']], [['train.jsonl', 'notes.py'], ['not-data']], [['train.bin'], ['not-data', 'no-data']],
  [['train.jsonl', 'train.csv'], ['split-twice']], [['a/train.jsonl', 'a/train.csv', 'b/train.csv'], ['split-twice']], [['.jsonl'], ['not-data', 'no-data']],
])('refuses %j', (paths, codes) => {
  const problems = datasetProblems(paths)
  expect(problems.map(({ code }) => code)).toEqual(codes)
  expect(problems.filter(({ code }) => code !== 'no-data').every(({ file }) => paths.includes(file!))).toBe(true)
})
