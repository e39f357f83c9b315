import { readFile, stat } from 'node:fs/promises'
import { Option, type Command } from 'commander'
import { parse } from 'yaml'
import { runPython } from '../../gpu-runner/python.ts'
import { usageError } from '../exit.ts'
import { dataPlace, existingFile, existingFolder, trainInto } from '../local-training.ts'
import { integerOption } from '../option-values.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'
import { addPublishOptions, evolveInRegistry, refuseLocal, requireOutput, type PublishOptions } from '../training-job.ts'

interface EvolveArguments extends CommonOptions, PublishOptions {
  model_name_or_path?: string
  output_dir?: string
  data?: string
  num_processes?: number
  parentKind: 'continued-pretraining' | 'instruction-tuning'
  force?: boolean
}

const EXAMPLES = `
Continued pretraining or instruction tuning by a configuration in Axolotl's form: all weights, or with adapter: lora a LoRA
that is merged into them in the end. Keys that are not honoured are refused by name. Configurations for OpenOrca, SlimOrca,
OpenPlatypus and AlpacaGPT4 lie in gpu-runner/python/configs.

Datasets come from the Hub, or with --data from <folder>/<name of the dataset>/train.jsonl (.json, .csv, .parquet); where
there is one dataset, from <folder>/train.jsonl too. Interrupted or killed, the same command goes on at its last checkpoint.

With --as, a runner of the registry does it and publishes the model as a child of its parent: the parent is then a model of
the registry, and --data is a dataset of it, as organization/name@version, or data of your organization that the runner has,
as organization/name.

Examples:
  portllm evolve gpu-runner/python/configs/slimorca.yaml --model_name_or_path ./mistral-v1 --output_dir ./mistral-v2
  portllm evolve ./notes.yaml --data ./notes --output_dir ./mistral-v2
  portllm evolve gpu-runner/python/configs/slimorca.yaml --model_name_or_path lab/mistral@1.0 --as lab/mistral@2.0 --parent-kind instruction-tuning`

export function addEvolve(program: Command): void {
  const command = addCommand(program, 'evolve <config>', 'train a model further on text')
    .option('-m, --model_name_or_path <folder>', "the parent (default: the configuration's base_model, where it is a folder); with --as organization/model@version")
    .option('-o, --output_dir <folder>', 'folder to make')
    .option('-d, --data <folder>', 'folder with the datasets, in place of the Hub; with --as organization/name@version of a dataset')
    .option('--num_processes <n>', 'processes that train together (default: one for each GPU)', integerOption(1, 1024))
    .option('-f, --force', 'replace an output folder that is not empty')
    .addOption(new Option('--parent-kind <kind>', 'with --as: how it is made from its parent').choices(['continued-pretraining', 'instruction-tuning']).default('continued-pretraining'))
    .addHelpText('after', EXAMPLES)
  addPublishOptions(command, 'model')
  answerWith(command, (session, options: EvolveArguments, config: string) => evolve(session, options, config))
}

async function evolve(session: Session, options: EvolveArguments, config: string): Promise<Answer> {
  const file = await existingFile(config, 'The configuration')
  if (options.as !== undefined) {
    const { as: model, model_name_or_path: parent, data = null, parentKind, description, visibility, wait } = options
    refuseLocal(options)
    if (parent === undefined) throw usageError('Name the parent, a model of the registry, with --model_name_or_path organization/model@version.')
    return evolveInRegistry(session, { model, parent, parentKind, config: file, data, wait, ...(description && { description }), ...(visibility && { visibility }) })
  }
  const output = requireOutput(options)
  const parent = options.model_name_or_path === undefined ? await baseModel(file) : await existingFolder(options.model_name_or_path, '--model_name_or_path')
  const run = { verb: 'evolve', parent, config: { file }, data: await dataPlace(options.data), num_processes: options.num_processes ?? null } as const
  return trainInto(session, output, options.force ?? false, (places, watch) => runPython({ ...run, ...places }, watch))
}

/** A configuration that is wrong otherwise is Python's to refuse. */
async function baseModel(file: string): Promise<string> {
  const named = (parse(await readFile(file, 'utf8')) as { base_model?: unknown } | null)?.base_model
  const isFolder = typeof named === 'string' && (await stat(named).then((found) => found.isDirectory(), () => false))
  if (!isFolder) throw usageError(`The configuration's base_model (${String(named)}) is no folder here. Name the model's folder with --model_name_or_path; portllm get fetches one.`)
  return existingFolder(named, 'base_model')
}
