import { join } from 'node:path'
import { mountReflinkDisk } from '../tests/setup/reflink.ts'
import { LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel, type LoraOptions } from './llama-model.ts'
import type { MergeRun } from './merge-run.ts'
import { prepare, run, timed, timing, type Timing } from './timing.ts'

export interface ReflinkBench {
  readonly fileSystem: string
  /** `cp --reflink=never`, in turns with the merge. */
  readonly copy: Timing
  readonly merge: Timing
  readonly cloned: boolean
}

/** The merge on a file system that shares blocks between files: XFS on a loop device. Null where none can be mounted. */
export async function benchReflink(adapter: LoraOptions, rounds: number): Promise<ReflinkBench | null> {
  const disk = await mountReflinkDisk(8192)
  if (disk === null) return null
  try {
    const [model, patch, output] = ['model', 'adapter', 'output'].map((name) => join(disk.folder, name)) as [string, string, string]
    await writeLlamaModel(model, LLAMA_SHAPES['1.1b'])
    await writeLlamaAdapter(patch, LLAMA_SHAPES['1.1b'], adapter)
    await run('sh', ['-c', 'cat "$0"/* > /dev/null', model])
    const [copies, merges]: [number[], number[]] = [[], []]
    let cloned = false
    for (let round = 0; round < rounds; round++) {
      await prepare(output)
      copies.push(await timed(() => run('cp', ['-r', '--reflink=never', model, output])))
      await prepare(output)
      const { stdout } = await run(process.execPath, [join(import.meta.dirname, 'merge-run.ts'), model, patch, output, 'complete'])
      const result = JSON.parse(stdout) as MergeRun
      merges.push(result.seconds)
      cloned ||= result.cloned
    }
    return { fileSystem: 'XFS', copy: timing(copies), merge: timing(merges), cloned }
  } finally {
    await disk.unmount()
  }
}
