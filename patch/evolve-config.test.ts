import { expect, it } from 'vitest'
import { checkEvolveConfig } from './evolve-config.ts'

it('takes datasets of the Hub, or of the data that the job names', () => {
  expect(() => checkEvolveConfig('learning_rate: 2e-5\nnum_epochs: 1\ndatasets:\n  - path: Open-Orca/SlimOrca\n    type: sharegpt\n', { hasData: false })).not.toThrow()
  expect(() => checkEvolveConfig('datasets: [{path: corpus, type: completion}]', { hasData: true })).not.toThrow()
})

it.each([
  ['a tag', 'a: !!python/name:os.system ', /tag/],
  ['a builder that reads files', 'datasets: [{path: json, type: completion}]', /not a dataset of the Hub/],
  ['a path of the runner', 'datasets: [{path: /etc, type: completion}]', /not a dataset of the Hub/],
  ['a path upwards', 'datasets: [{path: ../data, type: completion}]', /not a dataset of the Hub/],
  ['a dataset without a path', 'datasets: [{type: completion}]', /not a dataset of the Hub/],
  ['a dataset that is none', 'datasets: [a/b]', /a mapping with a path/],
  ['datasets that are no list', 'datasets: a/b', /a list/],
  ['no datasets', 'learning_rate: 1', /a list/],
  ['no mapping', 'text', /not a mapping/],
])('refuses %s', (_, text, message) => {
  expect(() => checkEvolveConfig(text, { hasData: false })).toThrow(message)
})
