/**
 * One merge in a process of its own, for bench/merge.ts, which measures it from outside:
 * `node bench/merge-run.ts MODEL ADAPTER OUTPUT complete|changed [sync]`. Prints JSON with its own seconds,
 * from the first look at the files to the last rename; Node's start is not in it.
 */
import { cp, mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { loadCore, type MergeProfile } from '../gpu-runner/core/core.ts'
import { planMerge } from './merge-plan.ts'

export interface MergeRun {
  readonly seconds: number
  readonly bytesWritten: number
  readonly cloned: boolean
  readonly profile: MergeProfile
}

/** Merges a folder into another; `changed` writes only the changed tensors, one file a shard. */
export async function runMerge(modelFolder: string, adapterFolder: string, output: string, what: 'complete' | 'changed', sync: boolean): Promise<MergeRun> {
  const core = await loadCore()
  const start = performance.now()
  await mkdir(output, { recursive: true })
  const plan = await planMerge(modelFolder, adapterFolder)
  const files = plan.files.flatMap(({ path, segments, changed }) => {
    const written = what === 'complete' ? segments : changed
    return written.length === 0 ? [] : [{ source: join(modelFolder, path), destination: join(output, path), segments: written }]
  })
  const result = await core.writeMergedFiles({ files, sync, figures: 'count' })
  await plan.close()
  if (what === 'complete') {
    for (const name of await readdir(modelFolder)) {
      if (!name.endsWith('.safetensors')) await cp(join(modelFolder, name), join(output, name))
    }
  }
  return {
    seconds: (performance.now() - start) / 1000,
    bytesWritten: result.files.reduce((sum, { bytes }) => sum + bytes, 0),
    cloned: result.bytesCloned > 0,
    profile: result.profile,
  }
}

if (process.argv[1] === import.meta.filename) {
  const [model, adapter, output, what, sync] = process.argv.slice(2)
  console.log(JSON.stringify(await runMerge(model!, adapter!, output!, what as 'complete' | 'changed', sync === 'sync')))
}
