import { datasetProblem } from './hub-dataset.ts'
import { parsePlainYaml, PlainYamlError } from './plain-yaml.ts'

const WHAT = 'The configuration'

/**
 * Checks an Axolotl configuration that a stranger sends: plain YAML whose datasets are the Hub's, or with `hasData` names
 * of folders in the data. Which keys it may have is said where it is honoured (gpu-runner/python). Throws PlainYamlError.
 */
export function checkEvolveConfig(text: string, { hasData }: { hasData: boolean }): void {
  const { datasets } = parsePlainYaml(text, WHAT)
  if (!Array.isArray(datasets) || datasets.length === 0) throw new PlainYamlError(`${WHAT} needs a list of at least one dataset under the key datasets.`)
  for (const dataset of datasets as unknown[]) {
    if (typeof dataset !== 'object' || dataset === null) throw new PlainYamlError(`${WHAT} needs a mapping with a path for each of its datasets.`)
    const problem = hasData ? null : datasetProblem('path' in dataset ? dataset.path : undefined)
    if (problem !== null) throw new PlainYamlError(`A dataset of the configuration cannot be used: ${problem}`)
  }
}
