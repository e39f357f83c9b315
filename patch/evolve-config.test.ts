import { expect, it } from 'vitest'
import { checkEvolveConfig } from './evolve-config.ts'

it('takes a configuration with datasets of the Hub, or none', () => {
  expect(() => checkEvolveConfig('learning_rate: 2e-5\nnum_epochs: 1\ndatasets:\n  - path: Open-Orca/SlimOrca\n    type: sharegpt\n')).not.toThrow()
  expect(() => checkEvolveConfig('learning_rate: 2e-5')).not.toThrow()
})

it.each([
  ['code', 'plugins: [x.y]', /key plugins/],
  ['a tag', 'a: !!python/name:os.system ', /tag/],
  ['files of the runner', 'datasets: [{path: json, type: completion}]', /not a dataset of the Hub/],
  ['a path of the runner', 'datasets: [{path: /etc, type: completion}]', /not a dataset of the Hub/],
  ['files beside a dataset', 'datasets: [{path: a/b, data_files: /etc/passwd}]', /key data_files/],
  ['a dataset without a path', 'datasets: [{type: completion}]', /not a dataset of the Hub/],
  ['a dataset that is none', 'datasets: [a/b]', /a mapping with a path/],
  ['datasets that are no list', 'datasets: a/b', /a list/],
  ['no mapping', 'text', /not a mapping/],
])('refuses %s', (_, text, message) => {
  expect(() => checkEvolveConfig(text)).toThrow(message)
})
