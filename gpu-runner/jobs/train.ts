import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TrainingRecord } from '../../patch/training.ts'
import { dataFolder } from '../data-folder.ts'
import { fetchFiles } from '../fetch-files.ts'
import { makeFolder } from '../make-folder.ts'
import type { EvolveSpec, FinetuneSpec, SignedFile, TrainingData, TrainResult } from '../protocol.ts'
import { runPython, type DataPlace } from '../python.ts'
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
  readonly data: DataPlace
}

async function train(model: readonly SignedFile[], data: TrainingData, context: ResearchContext, run: (model: string, at: TrainFolders) => Promise<{ training: TrainingRecord }>): Promise<TrainResult> {
  const { folder, signal, report } = context
  const at = { model: join(folder, 'model'), data: join(folder, 'data'), work: join(folder, 'work'), output: join(folder, 'output') }
  const place = await dataPlace(data, at.data)
  const rows = data !== null && 'files' in data ? data.files : []
  const total = [...model, ...rows].reduce((sum, { size }) => sum + size, 0)
  let done = 0
  const onBytes = (count: number) => report({ phase: 'downloading', done: (done += count), total, unit: 'bytes' })
  await fetchFiles(model, at.model, { signal, onBytes })
  await fetchFiles(rows, at.data, { signal, onBytes })
  for (const path of [at.work, at.output]) await makeFolder(path)
  const { training } = await run(at.model, { work: at.work, output: at.output, data: place })
  const files = await sendFiles(at.output, { ...context, onBytes: (sent, all) => report({ phase: 'sending', done: sent, total: all, unit: 'bytes' }) })
  return { training, files }
}

/** `fetched`: where the files of a dataset will lie. */
async function dataPlace(data: TrainingData, fetched: string): Promise<DataPlace> {
  if (data === null) return { hub: true }
  return 'folder' in data ? { folder: await dataFolder(data.folder) } : { folder: fetched, name: `${data.dataset} (${data.digest})` }
}
