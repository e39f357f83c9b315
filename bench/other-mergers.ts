import { existsSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pythonPath } from '../gpu-runner/python-environment.ts'
import { run } from './timing.ts'

const ENVIRONMENT = join(import.meta.dirname, '..', '.cache', 'bench-python')
const AXOLOTL = 'axolotl==0.19.0'

export interface OtherMerger {
  readonly name: string
  merge(model: string, adapter: string, output: string): Promise<{ seconds: number; peakBytes: number }>
}

/** PEFT's own merge, in the environment of the tests. */
export async function peft(): Promise<OtherMerger> {
  return merger('PEFT', await pythonPath(), 'peft')
}

/**
 * axolotl's merge, which rewrites one shard after another, from PyPI in an environment of its own that borrows PyTorch,
 * transformers and PEFT from that of the tests. (mergekit is not here: its merge of a LoRA is a call of PEFT.)
 */
export async function axolotl(): Promise<OtherMerger> {
  const tests = await pythonPath()
  const python = join(ENVIRONMENT, 'bin', 'python')
  if (!existsSync(python)) await run(tests, ['-m', 'venv', ENVIRONMENT])
  const [borrowed] = await sitePackages(join(tests, '..', '..'))
  const [own] = await sitePackages(ENVIRONMENT)
  await writeFile(join(own!, 'tests.pth'), `${borrowed}\n`)
  await run(python, ['-m', 'pip', 'install', '--quiet', '--no-deps', AXOLOTL])
  return merger(`axolotl ${AXOLOTL.split('==')[1]}, shard by shard`, python, 'axolotl')
}

async function sitePackages(environment: string): Promise<string[]> {
  const library = join(environment, 'lib')
  return (await readdir(library)).filter((name) => name.startsWith('python')).map((name) => join(library, name, 'site-packages'))
}

function merger(name: string, python: string, tool: string): OtherMerger {
  return {
    name,
    async merge(model, adapter, output) {
      const { stdout } = await run(python, [join(import.meta.dirname, 'other_mergers.py'), tool, model, adapter, output], { maxBuffer: 1 << 26, env: { ...process.env, HF_HUB_OFFLINE: '1', TRANSFORMERS_OFFLINE: '1' } })
      return JSON.parse(stdout.trim().split('\n').at(-1)!) as { seconds: number; peakBytes: number }
    },
  }
}
