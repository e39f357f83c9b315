/**
 * One merge in a process of its own, for bench/merge.ts, which measures it from outside:
 * `node bench/merge-run.ts MODEL ADAPTER OUTPUT complete|changed [sync]`. Prints JSON with its own seconds,
 * from the first look at the files to the last rename; Node's start is not in it.
 */
import { cp, mkdir, readdir, copyFile, constants } from 'node:fs/promises'
import { join } from 'node:path'
import { loadCore } from '../gpu-runner/core/core.ts'
import { planMerge } from './merge-plan.ts'

export interface MergeRun {
  readonly seconds: number
  readonly bytesWritten: number
  readonly cloned: boolean
}

/** Merges a folder into another; `changed` writes only the changed tensors, one file a shard. */
export async function runMerge(modelFolder: string, adapterFolder: string, output: string, what: 'complete' | 'changed', sync: boolean): Promise<MergeRun> {
  const core = await loadCore()
  const start = performance.now()
  await mkdir(output, { recursive: true })
  const plan = await planMerge(modelFolder, adapterFolder)
  let bytesWritten = 0
  let cloned = false
  // Two files at a time: the kernel lets only one thread write into a file at once.
  const queue = [...plan.files]
  const worker = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      const source = join(modelFolder, file.path)
      const destination = join(output, file.path)
      const segments = what === 'complete' ? file.segments : file.changed
      if (segments === null) {
        await copyFile(source, destination, constants.COPYFILE_FICLONE)
        bytesWritten += file.size
      } else if (segments.length > 0) {
        const result = await core.writeMergedFile({ source, destination, segments, sync })
        bytesWritten += result.bytes
        cloned ||= result.cloned
      }
    }
  }
  await Promise.all([worker(), worker()])
  await plan.close()
  if (what === 'complete') {
    for (const name of await readdir(modelFolder)) {
      if (!name.endsWith('.safetensors')) await cp(join(modelFolder, name), join(output, name))
    }
  }
  return { seconds: (performance.now() - start) / 1000, bytesWritten, cloned }
}

if (process.argv[1] === import.meta.filename) {
  const [model, adapter, output, what, sync] = process.argv.slice(2)
  console.log(JSON.stringify(await runMerge(model!, adapter!, output!, what as 'complete' | 'changed', sync === 'sync')))
}
