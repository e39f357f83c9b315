import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TrainingRecord } from '../../patch/training.ts'
import { dataFolder } from '../data-folder.ts'
import { fetchFiles } from '../fetch-files.ts'
import { makeFolder } from '../make-folder.ts'
import type { EvolveSpec, FinetuneSpec, SignedFile, TrainResult } from '../protocol.ts'
import { runPython } from '../python.ts'
import { sendFiles } from '../send-files.ts'
import type { ResearchContext } from './job-context.ts'
import { research } from './research.ts'

/** Fine-tunes an adapter on a base. An attempt goes on at the last checkpoint that an earlier one left. Throws JobFailure. */
export function runFinetune(spec: FinetuneSpec, context: ResearchContext): Promise<TrainResult> {
  const { baseName, task, taskFile, options } = spec
  return train(spec.base, spec.data, context, async (base, at) => {
    const file = join(context.folder, 'task.yaml')
    if (taskFile !== null) await writeFile(file, taskFile)
    return research(context, (watch) => runPython({ verb: 'finetune', base, base_name: baseName, ...at, task: taskFile === null ? { name: task } : { file }, options }, watch))
  })
}

/** Trains all of a model further, by an Axolotl configuration; resumed like a fine-tuning. Throws JobFailure. */
export function runEvolve(spec: EvolveSpec, context: ResearchContext): Promise<TrainResult> {
  return train(spec.parent, spec.data, context, async (parent, at) => {
    const file = join(context.folder, 'config.yaml')
    await writeFile(file, spec.config)
    return research(context, (watch) => runPython({ verb: 'evolve', parent, ...at, config: { file } }, watch))
  })
}

interface TrainFolders {
  readonly work: string
  readonly output: string
  readonly data: { readonly hub: true } | { readonly folder: string }
}

async function train(model: readonly SignedFile[], dataName: string | null, context: ResearchContext, run: (model: string, at: TrainFolders) => Promise<{ training: TrainingRecord }>): Promise<TrainResult> {
  const { folder, signal, report } = context
  const data = dataName === null ? { hub: true as const } : { folder: await dataFolder(dataName) }
  const at = { model: join(folder, 'model'), work: join(folder, 'work'), output: join(folder, 'output') }
  const total = model.reduce((sum, { size }) => sum + size, 0)
  let done = 0
  await fetchFiles(model, at.model, { signal, onBytes: (count) => report({ phase: 'downloading', done: (done += count), total, unit: 'bytes' }) })
  for (const path of [at.work, at.output]) await makeFolder(path)
  const { training } = await run(at.model, { work: at.work, output: at.output, data })
  const files = await sendFiles(at.output, { ...context, onBytes: (sent, all) => report({ phase: 'sending', done: sent, total: all, unit: 'bytes' }) })
  return { training, files }
}
