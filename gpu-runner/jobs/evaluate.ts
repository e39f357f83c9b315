import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { dataFolder } from '../data-folder.ts'
import { fetchFiles } from '../fetch-files.ts'
import { makeFolder } from '../make-folder.ts'
import type { EvaluateResult, EvaluateSpec } from '../protocol.ts'
import { runPython } from '../python.ts'
import { sendFiles } from '../send-files.ts'
import type { ResearchContext } from './job-context.ts'
import { research } from './research.ts'

/** Puts the tasks to a model with lm-eval, and keeps what was asked and answered. Throws JobFailure. */
export async function runEvaluate(spec: EvaluateSpec, context: ResearchContext): Promise<EvaluateResult> {
  const { folder, signal, report } = context
  const at = { model: join(folder, 'model'), adapter: join(folder, 'adapter'), tasks: join(folder, 'tasks'), output: join(folder, 'output') }
  const data = spec.data === null ? null : { folder: await dataFolder(spec.data) }
  const total = [...spec.model, ...(spec.adapter ?? [])].reduce((sum, { size }) => sum + size, 0)
  let done = 0
  const onBytes = (count: number) => report({ phase: 'downloading', done: (done += count), total, unit: 'bytes' })
  await fetchFiles(spec.model, at.model, { signal, onBytes })
  if (spec.adapter !== null) await fetchFiles(spec.adapter, at.adapter, { signal, onBytes })
  if (spec.taskFile !== null) {
    await makeFolder(at.tasks)
    await writeFile(join(at.tasks, 'task.yaml'), spec.taskFile)
  }
  // What an earlier attempt wrote is of an evaluation that did not end.
  await rm(at.output, { recursive: true, force: true })
  await makeFolder(at.output)
  const { tasks, num_fewshot, batch_size, limit, seed } = spec
  const run = {
    verb: 'evaluate' as const, model: at.model, peft: spec.adapter === null ? null : at.adapter, tasks, include: spec.taskFile === null ? null : at.tasks, data, num_fewshot, batch_size, limit, seed, output: at.output,
  }
  const measured = await research(context, (watch) => runPython(run, watch))
  const files = await sendFiles(at.output, { ...context, onBytes: (sent, all) => report({ phase: 'sending', done: sent, total: all, unit: 'bytes' }) })
  return { scores: measured.results, files, versions: measured.versions, device: measured.device, seconds: measured.wall_seconds }
}
