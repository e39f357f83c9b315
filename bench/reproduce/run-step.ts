import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { runPython, type PythonProgress } from '../../gpu-runner/python.ts'
import type { Analysis } from '../../patch/analysis.ts'
import type { TrainingRecord } from '../../patch/training.ts'
import { makeData, type MadeData } from './make-data.ts'
import type { Plan } from './plan.ts'
import { portllm, type Cost } from './portllm-command.ts'
import type { Step, StepWork } from './steps.ts'

/** Of one task; the accuracy on its test split. */
export interface Score {
  readonly task: string
  readonly version: string
  readonly value: number
  readonly stderr: number | null
  readonly samples: number
}

/** The result of each kind of step. */
export interface StepResults {
  readonly data: MadeData
  readonly evolve: TrainingRecord
  readonly finetune: TrainingRecord
  readonly alone: { readonly scores: readonly Score[] }
  readonly score: { readonly merge: Cost; readonly scores: readonly Score[] }
  readonly analyze: { readonly cost: Cost } & Pick<Analysis, 'whole' | 'parts'>
}

export interface StepContext {
  readonly plan: Plan
  readonly folder: string
  readonly signal: AbortSignal
  readonly onLog: (line: string) => void
  readonly onProgress: (progress: PythonProgress) => void
}

/** Folder of what a step makes for the steps after it; null where that is its result alone. */
export function outputOf(folder: string, { id, key, work }: Step): string | null {
  return work.kind === 'data' || work.kind === 'evolve' || work.kind === 'finetune' ? join(folder, work.kind, `${id.split('/').slice(1).join('-') || 'all'}-${key.slice(0, 8)}`) : null
}

/** Does a step whose inputs are there. What it makes appears under its name only when it is whole. */
export async function runStep<K extends StepWork['kind']>(step: Step & { work: { kind: K } }, context: StepContext): Promise<StepResults[K]> {
  const doers: { [Kind in StepWork['kind']]: (work: Extract<StepWork, { kind: Kind }>, step: Step, context: StepContext) => Promise<StepResults[Kind]> } = { data, evolve, alone, finetune, score, analyze }
  const work = step.work as Extract<StepWork, { kind: K }>
  return doers[step.work.kind as K](work, step, context)
}

async function data(_: StepWork, step: Step, { plan, folder, ...context }: StepContext): Promise<MadeData> {
  const output = outputOf(folder, step)!
  await mkdir(join(output, '..'), { recursive: true })
  return makeData(plan, output, join(folder, 'downloads'), context)
}

async function evolve({ model, text }: Extract<StepWork, { kind: 'evolve' }>, step: Step, context: StepContext): Promise<TrainingRecord> {
  const parent = modelFolder(context, step, model - 1)
  return training(step, context, async (output, work) => {
    const config = join(work, 'config.yaml')
    await writeFile(config, stringify({ base_model: `evolution-${model - 1}`, datasets: [{ path: text, type: 'completion' }], seed: model, ...context.plan.evolve }))
    return runPython({ verb: 'evolve', parent, output, work, config: { file: config }, data: { folder: join(dataFolder(context, step), 'texts') } }, context)
  })
}

async function finetune({ task, seed, model }: Extract<StepWork, { kind: 'finetune' }>, step: Step, context: StepContext): Promise<TrainingRecord> {
  const tasks = join(dataFolder(context, step), 'tasks')
  const { target_modules, ...options } = context.plan.finetune
  return training(step, context, (output, work) =>
    runPython({
      verb: 'finetune', base: modelFolder(context, step, model), base_name: `evolution-${model}`, output, work,
      task: { file: join(tasks, `${task}.yaml`) }, data: { folder: join(tasks, task) }, options: { ...options, seed, target_modules: target_modules && [...target_modules] },
    }, context))
}

/** Trains into a partial folder; a killed training goes on at its checkpoint when the step is done again. */
async function training(step: Step, { folder }: StepContext, train: (output: string, work: string) => Promise<{ training: TrainingRecord }>): Promise<TrainingRecord> {
  const output = outputOf(folder, step)!
  const [partial, work] = [`${output}.partial`, `${output}.work`]
  await mkdir(work, { recursive: true })
  await rm(partial, { recursive: true, force: true })
  const { training: record } = await train(partial, work)
  await rm(output, { recursive: true, force: true })
  await rename(partial, output)
  await rm(work, { recursive: true, force: true })
  return record
}

async function alone({ model }: Extract<StepWork, { kind: 'alone' }>, step: Step, context: StepContext): Promise<StepResults['alone']> {
  return { scores: await evaluate(step, context, modelFolder(context, step, model), Object.keys(context.plan.tasks)) }
}

async function score({ task, model, from }: Extract<StepWork, { kind: 'score' }>, step: Step, context: StepContext): Promise<StepResults['score']> {
  const merged = join(context.folder, 'merged')
  const patch = inputFolder(context, step, (work) => work.kind === 'finetune')
  const base = from === model ? ['--base', modelFolder(context, step, model)] : []
  try {
    const { cost } = await portllm(['merge', modelFolder(context, step, model), patch, ...base, '--output', merged, '--force', '--quiet', '--json'], context.signal)
    return { merge: cost, scores: await evaluate(step, context, merged, [task]) }
  } finally {
    await rm(merged, { recursive: true, force: true })
  }
}

async function analyze({ model }: Extract<StepWork, { kind: 'analyze' }>, step: Step, context: StepContext): Promise<StepResults['analyze']> {
  const figures = join(context.folder, 'analysis.json')
  const patch = inputFolder(context, step, (work) => work.kind === 'finetune')
  const { cost } = await portllm(['analyze', patch, '--base', modelFolder(context, step, 0), '--target', modelFolder(context, step, model), '--output', figures, '--quiet', '--json'], context.signal)
  const { whole, parts } = JSON.parse(await readFile(figures, 'utf8')) as Analysis
  await rm(figures)
  return { cost, whole, parts }
}

async function evaluate(step: Step, context: StepContext, model: string, tasks: readonly string[]): Promise<Score[]> {
  const data = join(dataFolder(context, step), 'tasks')
  const samples = join(context.folder, 'samples', step.id.replaceAll('/', '-'))
  const { results } = await runPython({
    verb: 'evaluate', model, peft: null, tasks: [...tasks], include: data, data: { folder: tasks.length === 1 ? join(data, tasks[0]!) : data },
    num_fewshot: 0, batch_size: context.plan.evaluate.batch_size, limit: null, seed: 1, output: samples,
  }, context)
  return results.filter(({ metric }) => metric === 'acc').map(({ task, version, value, stderr, samples: count }) => ({ task, version, value, stderr, samples: count }))
}

function dataFolder(context: StepContext, step: Step): string {
  return inputFolder(context, step, (work) => work.kind === 'data')
}

function modelFolder(context: StepContext, step: Step, model: number): string {
  if (model === 0) return join(dataFolder(context, step), 'base')
  return inputFolder(context, step, (work) => work.kind === 'evolve' && work.model === model)
}

function inputFolder({ folder }: StepContext, step: Step, isWanted: (work: StepWork) => boolean): string {
  return outputOf(folder, allInputs(step).find(({ work }) => isWanted(work))!)!
}

/** The inputs, nearest first, and theirs. */
function allInputs({ inputs }: Step): Step[] {
  return [...inputs, ...inputs.flatMap(allInputs)]
}

/** A step that is in the journal and whose folder was lost has to be done again. */
export function isOutputThere(folder: string, step: Step): boolean {
  const output = outputOf(folder, step)
  return output === null || existsSync(output)
}
