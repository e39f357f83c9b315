import { Option, type Command } from 'commander'
import { FINETUNE_DEFAULTS, runPython } from '../../gpu-runner/python.ts'
import type { FinetuneOptions } from '../../patch/training.ts'
import { usageError } from '../exit.ts'
import { dataPlace, existingFile, existingFolder, trainInto } from '../local-training.ts'
import { integerOption, listOption, numberOption } from '../option-values.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'
import { addPublishOptions, finetuneInRegistry, refuseLocal, requireOutput, type PublishOptions } from '../training-job.ts'

interface FinetuneArguments extends CommonOptions, FinetuneOptions, PublishOptions {
  task?: string
  task_file?: string
  data?: string
  model_name_or_path: string
  output_dir?: string
  num_processes?: number
  tag?: string
  force?: boolean
}

const EXAMPLES = `
Trains a LoRA patch on a frozen base, in Python (PyTorch, transformers, PEFT; installed at first use). The options have the
names and the defaults of the paper's scripts. Prompts and answers are those of lm-eval's own task, so that
portllm evaluate asks what was learned.

Tasks: boolq, sst2, mrpc, rte, wnli, winogrande, gsm8k, any other task of lm-eval that has training data, or one of your
own in a file. Data come from the Hub, or with --data from <folder>/train.jsonl (.json, .csv, .parquet).

Interrupted or killed, the same command goes on at its last checkpoint. On several GPUs each gets a process, and
--batch_size examples at a time.

With --as, a runner of the registry does it and publishes the patch: the base is then a model of the registry, and --data is
a dataset of the registry, as organization/name@version, or data of your organization that the runner has, as
organization/name.

Examples:
  portllm finetune --task boolq --model_name_or_path ./mistral-v1 --output_dir ./boolq-patch
  portllm finetune --task gsm8k --model_name_or_path ./mistral-v1 --rank 16 --lr 2e-4 --num_epochs 3 --bf16 --gradient_checkpointing --output_dir ./gsm8k-patch
  portllm finetune --task_file ./triage.yaml --data ./notes --model_name_or_path ./mistral-v1 --output_dir ./triage-patch
  portllm finetune --task boolq --model_name_or_path lab/mistral@1.0 --as lab/boolq@1.0.0
  portllm finetune --task_file ./triage.yaml --data hospital/notes@1.0 --model_name_or_path lab/mistral@1.0 --as hospital/triage@1.0.0`

const OPTIONS: readonly (readonly [flags: string, description: string, parse: (text: string) => unknown])[] = [
  ['--max_length <tokens>', 'of an example; longer ones lose the beginning of their context', integerOption(2, 1_000_000)],
  ['--batch_size <n>', 'examples at a time on each device', integerOption(1, 4096)],
  ['--num_workers <n>', 'processes that prepare batches', integerOption(0, 64)],
  ['--rank <r>', 'of the LoRA', integerOption(1, 4096)],
  ['--lora_alpha <a>', 'scale of the LoRA, times its rank', numberOption(0, 1e6)],
  ['--lora_dropout <p>', 'part of the inputs of the LoRA that is left out at each step', numberOption(0, 0.999)],
  ['--lr <rate>', 'learning rate at the start; it falls to 0 along a line', numberOption(0, Number.MAX_VALUE)],
  ['--num_epochs <n>', 'times that the data are gone through', numberOption(0, 10_000)],
  ['--seed <n>', 'of the first weights, the order and the dropout', integerOption(0, 2 ** 31 - 1)],
  ['--gradient_accumulation_steps <n>', 'batches of a step', integerOption(1, 4096)],
  ['--save_steps <n>', 'steps from one checkpoint to the next', integerOption(1, 100_000_000)],
]

export function addFinetune(program: Command): void {
  const command = addCommand(program, 'finetune', 'train a patch for a task')
    .option('-t, --task <name>', 'name of the task')
    .option('--task_file <file>', 'YAML of a task of your own, as lm-eval has them')
    .requiredOption('-m, --model_name_or_path <folder>', 'the base; with --as organization/model@version')
    .option('-o, --output_dir <folder>', 'folder to make')
    .option('-d, --data <folder>', 'folder with train.jsonl, in place of the Hub; with --as organization/name@version of a dataset')
  for (const [flags, description, parse] of OPTIONS) {
    const option = new Option(flags, description).argParser(parse)
    command.addOption(option.default(FINETUNE_DEFAULTS[option.attributeName() as keyof FinetuneOptions]))
  }
  command
    .option('--target_modules <names>', 'modules that get a LoRA, with commas between, or all-linear (default: those that PEFT takes)', listOption)
    .option('--max_steps <n>', 'end after so many steps', integerOption(1, 100_000_000))
    .option('--gradient_checkpointing', 'less memory, more time', false)
    .option('--bf16', 'base in bfloat16 and mixed precision', false)
    .option('--num_processes <n>', 'processes that train together (default: one for each GPU)', integerOption(1, 1024))
    .option('-f, --force', 'replace an output folder that is not empty')
    .option('--tag <tag>', 'with --as: dist-tag to set (default: latest)')
    .addHelpText('after', EXAMPLES)
  addPublishOptions(command, 'patch')
  answerWith(command, (session, options: FinetuneArguments) => finetune(session, options))
}

async function finetune(session: Session, options: FinetuneArguments): Promise<Answer> {
  const { task, task_file: file, model_name_or_path: name, num_processes = null } = options
  if ((task === undefined) === (file === undefined)) throw usageError('Name either a task (--task boolq) or a file with a task of your own (--task_file).')
  if (options.as !== undefined) {
    const { as: patch, data = null, tag, description, visibility, wait } = options
    refuseLocal(options)
    return finetuneInRegistry(session, { patch, base: name, task: task ?? null, taskFile: file ?? null, data, options: trainingOptions(options), wait, ...(tag && { tag }), ...(description && { description }), ...(visibility && { visibility }) })
  }
  const output = requireOutput(options)
  const run = {
    verb: 'finetune', base: await existingFolder(name, '--model_name_or_path'), base_name: name, num_processes,
    task: file === undefined ? { name: task! } : { file: await existingFile(file, '--task_file') },
    data: await dataPlace(options.data), options: trainingOptions(options),
  } as const
  return trainInto(session, output, options.force ?? false, (places, watch) => runPython({ ...run, ...places }, watch))
}

function trainingOptions(given: FinetuneOptions): FinetuneOptions {
  const chosen = Object.keys(FINETUNE_DEFAULTS).map((key) => [key, given[key as keyof FinetuneOptions]] as const)
  return { ...FINETUNE_DEFAULTS, ...Object.fromEntries(chosen.filter(([, value]) => value !== undefined)) }
}
