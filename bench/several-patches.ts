import { join } from 'node:path'
import { pythonPath } from '../gpu-runner/python-environment.ts'
import { ALL_LINEARS, writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'
import { run } from './timing.ts'

const SHAPE = { hidden: 1024, layers: 2, heads: 16, keyValueHeads: 4, intermediate: 2816, vocabulary: 2048, shards: 1 }

/** Each patch then has about a hundredth of the weights' size, as trained ones have. */
const SIGMA = 0.005

export interface SeveralPatches {
  readonly patches: number
  readonly elements: number
  /** Share of the changed tensors' elements that are not the bfloat16 next to the sum in float64. */
  readonly ours: number
  readonly peft: number
}

/** Merges several patches at once with ours, one after another with PEFT, and holds both to float64. */
export async function severalPatches(folder: string, counts: readonly number[]): Promise<SeveralPatches[]> {
  const python = await pythonPath()
  const model = join(folder, 'several-model')
  await writeLlamaModel(model, SHAPE, { seed: 3 })
  const adapters = Array.from({ length: Math.max(...counts) }, (_, i) => join(folder, `several-adapter-${i}`))
  for (const [i, adapter] of adapters.entries()) await writeLlamaAdapter(adapter, SHAPE, { rank: 16, alpha: 32, targets: ALL_LINEARS, seed: 100 + i, sigma: SIGMA })
  const results: SeveralPatches[] = []
  for (const count of counts) {
    const merged = join(folder, `several-merged-${count}`)
    const patches = adapters.slice(0, count)
    await run(process.execPath, [join(import.meta.dirname, '..', 'cli', 'main.ts'), 'merge', model, ...patches, '--output', merged, '--quiet', '--json'], { env: { ...process.env, XDG_CACHE_HOME: join(folder, 'cache') } })
    const { stdout } = await run(python, [join(import.meta.dirname, 'several_patches.py'), model, merged, ...patches], { maxBuffer: 1 << 26 })
    results.push({ patches: count, ...(JSON.parse(stdout.trim().split('\n').at(-1)!) as Omit<SeveralPatches, 'patches'>) })
  }
  return results
}
