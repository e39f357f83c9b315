import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Option, type Command } from 'commander'
import { runPython, type EvaluateResult, type EvaluateRun } from '../../gpu-runner/python.ts'
import { evaluateInRegistry } from '../evaluate-job.ts'
import { usageError } from '../exit.ts'
import { formatFields, formatTable } from '../format.ts'
import { existingFolder } from '../local-training.ts'
import { collectOption, integerOption, listOption } from '../option-values.ts'
import { openOutputFolder } from '../output-folder.ts'
import { withPython } from '../python-run.ts'
import { isModelReference } from '../references.ts'
import { formatScore } from '../scores.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface EvaluateArguments extends CommonOptions {
  model: string
  patch?: string[]
  how?: 'merged' | 'peft'
  task_file?: string
  wait: boolean
  peft?: string
  tasks?: string[]
  include_path?: string
  data?: string
  num_fewshot?: number
  batch_size: number
  limit?: number
  seed: number
  dtype: NonNullable<EvaluateRun['dtype']>
  output?: string
  force?: boolean
}

const EXAMPLES = `
Runs lm-eval on a model, alone or with a patch that PEFT applies while it runs. A merged model (portllm merge, portllm get)
is a model like any other. Scores have their standard error; of two runs only scores of one task in one version compare.

Data come from the Hub, or with --data from <folder>/<task>/validation.jsonl (or test; .json, .csv, .parquet); of one task
alone from <folder>/validation.jsonl too.

A model organization/model@version is one of the registry, whose runner then does it: with --patch, merged into it or applied
by PEFT (--how). The same question is answered once; --data is data of your organization that the runner has. --output
fetches what the registry keeps of it; interrupted, the same command goes on.

Examples:
  portllm evaluate --model ./mistral-v2 --tasks boolq,winogrande
  portllm evaluate --model ./mistral-v2 --peft ./boolq-patch --tasks boolq --num_fewshot 0 --batch_size 32
  portllm evaluate --model ./merged --tasks triage --include_path ./my-tasks --data ./notes --output ./results
  portllm evaluate --model lab/mistral@2.0 --tasks boolq --output ./results
  portllm evaluate --model lab/mistral@2.0 --patch hospital/triage:0.8 --patch lab/style@2.1.0:0.5 --tasks boolq
  portllm evaluate --model lab/mistral@2.0 --patch hospital/triage@^1 --task_file ./triage.yaml --data hospital/notes`

export function addEvaluate(program: Command): void {
  const command = addCommand(program, 'evaluate', 'score a model on tasks')
    .requiredOption('-m, --model <folder>', 'the model; or organization/model@version of a registry')
    .option('-p, --peft <folder>', 'a patch that PEFT applies while the model runs')
    .option('-t, --tasks <names>', "names of lm-eval's tasks, or of your own, with commas between", listOption)
    .option('--include_path <folder>', 'folder with YAML files of tasks of your own')
    .option('-d, --data <folder>', 'folder with the data, in place of the Hub; in a registry organization/name')
    .option('--num_fewshot <n>', 'solved examples before each question (default: as the task says)', integerOption(0, 1000))
    .option('--batch_size <n>', 'questions at a time', integerOption(1, 4096), 8)
    .option('--limit <n>', 'the first n questions of each task only', integerOption(1, 1_000_000_000))
    .option('--seed <n>', 'of few-shot examples and of sampling', integerOption(0, 2 ** 31 - 1), 1234)
    .addOption(new Option('--dtype <dtype>', 'that the model computes in; auto: as it is stored').choices(['auto', 'float32', 'bfloat16', 'float16']).default('auto'))
    .option('-o, --output <folder>', 'folder to make for results.json and the answers to every question (samples_<task>.jsonl)')
    .option('-f, --force', 'replace an output folder that is not empty')
    .option('--patch <org/name>', 'in a registry: the patch, with @version, @range or @tag, and :weight; repeatable, in the order of summation', collectOption)
    .addOption(new Option('--how <how>', 'in a registry: merge the patch, or have PEFT apply it (default: merged)').choices(['merged', 'peft']))
    .option('--task_file <file>', 'in a registry: YAML of a task of your own')
    .option('--no-wait', 'in a registry: do not wait for the scores')
    .addHelpText('after', EXAMPLES)
  answerWith(command, (session, options: EvaluateArguments) => evaluate(session, options))
}

async function evaluate(session: Session, options: EvaluateArguments): Promise<Answer> {
  if (await isModelReference(options.model)) return inRegistry(session, options)
  const { model, peft, tasks = [], include_path: include, data, num_fewshot = null, batch_size, limit = null, seed, dtype, output } = options
  refuseOptions(options, ['patch', 'how', 'task_file'], 'is for a model of a registry (--model organization/model@version)')
  if (tasks.length === 0) throw usageError('Name the tasks with --tasks, such as --tasks boolq,winogrande.')
  const run = {
    verb: 'evaluate', tasks, num_fewshot, batch_size, limit, seed, dtype,
    model: await existingFolder(model, '--model'),
    peft: peft === undefined ? null : await existingFolder(peft, '--peft'),
    include: include === undefined ? null : await existingFolder(include, '--include_path'),
    data: data === undefined ? null : { folder: await existingFolder(data, '--data') },
  } as const
  const measure = (folder: string) => withPython(session, (watch) => runPython({ ...run, output: folder }, watch))
  const result = output === undefined ? await intoNowhere(measure) : await intoFolder(output, options.force ?? false, measure)
  return { json: { model, peft: peft ?? null, ...result }, text: describe(model, peft, result) }
}

async function inRegistry(session: Session, options: EvaluateArguments): Promise<Answer> {
  const { model, patch: patches = [], how = null, tasks = [], task_file: taskFile = null, data = null, num_fewshot = null, batch_size, limit = null, seed, wait, output = null, force = false } = options
  refuseOptions(options, ['peft', 'include_path'], 'is for a model in a folder; in a registry say --patch and --task_file')
  if (output !== null && !wait) throw usageError('--output waits for what is recorded: leave --no-wait away.')
  if (options.dtype !== 'auto') throw usageError('--dtype is for a model in a folder: a registry evaluates a model as it is stored.')
  return evaluateInRegistry(session, { model, patches, how, tasks, taskFile, data, num_fewshot, batch_size, limit, seed, wait, output, force })
}

function refuseOptions(options: EvaluateArguments, names: readonly (keyof EvaluateArguments)[], why: string): void {
  const given = names.find((name) => options[name] !== undefined)
  if (given !== undefined) throw usageError(`--${given} ${why}.`)
}

async function intoFolder(path: string, force: boolean, measure: (folder: string) => Promise<EvaluateResult>): Promise<EvaluateResult> {
  const output = await openOutputFolder(path, force)
  try {
    const result = await measure(output.partial)
    await output.finish()
    return result
  } catch (error) {
    await rm(output.partial, { recursive: true, force: true })
    throw error
  }
}

async function intoNowhere(measure: (folder: string) => Promise<EvaluateResult>): Promise<EvaluateResult> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-evaluate-'))
  try {
    return await measure(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function describe(model: string, peft: string | undefined, { results, config, device, wall_seconds }: EvaluateResult): string {
  const rows = results.map((score) => [score.task, score.version, score.filter === 'none' ? score.metric : `${score.metric}, ${score.filter}`, formatScore(score), String(score.samples)])
  const fields = formatFields([['model', model], ['patch', peft], ['computed', `in ${String(config.dtype)} on ${device}, ${wall_seconds.toFixed(1)} s`]])
  return `${fields}\n\n${formatTable(['task', 'version', 'metric', 'score', 'questions'], rows)}`
}
