import { datasetProblem } from './hub-dataset.ts'
import { parsePlainYaml, PlainYamlError } from './plain-yaml.ts'

/** Keys of Axolotl that would have the runner load code or read files of its own; which others are honoured is Python's to say. */
const FORBIDDEN = ['plugins', 'trust_remote_code', 'deepspeed', 'pretraining_dataset', 'test_datasets', 'dataset_prepared_path', 'resume_from_checkpoint', 'lora_model_dir', 'hub_model_id', 'wandb_project', 'mlflow_tracking_uri'] as const
const FORBIDDEN_OF_DATASET = ['data_files', 'ds_type', 'trust_remote_code', 'storage_options'] as const
const WHAT = 'The configuration'

/** Checks an Axolotl configuration that a stranger sends: plain YAML, whose datasets are the Hub's. Throws PlainYamlError. */
export function checkEvolveConfig(text: string): void {
  const config = parsePlainYaml(text, WHAT)
  const forbidden = FORBIDDEN.find((key) => Object.hasOwn(config, key))
  if (forbidden !== undefined) throw new PlainYamlError(`${WHAT} has the key ${forbidden}, which a job of a registry does not take. Leave it out.`)
  const { datasets } = config
  if (datasets === undefined) return
  if (!Array.isArray(datasets)) throw new PlainYamlError(`${WHAT} needs a list under the key datasets.`)
  for (const dataset of datasets as unknown[]) {
    if (typeof dataset !== 'object' || dataset === null) throw new PlainYamlError(`${WHAT} needs a mapping with a path for each of its datasets.`)
    const key = FORBIDDEN_OF_DATASET.find((name) => Object.hasOwn(dataset, name))
    if (key !== undefined) throw new PlainYamlError(`A dataset of the configuration has the key ${key}, which a job of a registry does not take. Leave it out.`)
    const problem = datasetProblem('path' in dataset ? dataset.path : undefined)
    if (problem !== null) throw new PlainYamlError(`A dataset of the configuration cannot be used: ${problem}`)
  }
}
