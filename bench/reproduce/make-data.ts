import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { makeFixtureData } from './fixture-data.ts'
import type { Plan } from './plan.ts'

/** What the data are, for the report. */
export interface MadeData {
  readonly packages: readonly { readonly registry: string; readonly name: string; readonly version: string; readonly sha256: string; readonly licence: string; readonly used_for: string }[]
  readonly tasks: Record<string, { readonly about: string; readonly prompt: string; readonly choices: readonly string[]; readonly sizes: Readonly<Record<string, number>>; readonly example: { readonly text: string; readonly label: number } }>
  readonly texts: Record<string, { readonly about: string; readonly characters: number }>
}

const MAKE = join(import.meta.dirname, 'sources', 'make.py')
/** Of the choice of examples and texts. */
const SEED = 1

/**
 * Makes a folder with `base/` (the pretrained model), `tasks/<name>.yaml` with `tasks/<name>/{train,test}.jsonl`, and
 * `texts/<name>/train.jsonl`. Archives that were downloaded before are taken from `cache`.
 */
export async function makeData(plan: Plan, output: string, cache: string, { signal, onLog }: { signal: AbortSignal; onLog: (line: string) => void }): Promise<MadeData> {
  if (plan.model === 'fixture') return makeFixtureData(plan, output)
  await mkdir(cache, { recursive: true })
  const wanted = join(cache, 'plan.json')
  await writeFile(wanted, JSON.stringify({ seed: SEED, tasks: plan.tasks, texts: Object.fromEntries(plan.evolutions.map(({ text, characters }) => [text, characters])) }))
  const child = spawn(await pythonPath(), [MAKE, '--plan', wanted, '--output', output, '--cache', cache], { stdio: ['ignore', 'pipe', 'pipe'], signal })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    onLog(text.trimEnd())
  })
  const code = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
  signal.throwIfAborted()
  if (code !== 0) throw new Error(`The data could not be made: ${stderr.trim().split('\n').at(-1)}`)
  return JSON.parse(stdout) as MadeData
}
