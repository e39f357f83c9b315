import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const MAIN = join(import.meta.dirname, '..', '..', 'cli', 'main.ts')
const USAGE = pathToFileURL(join(import.meta.dirname, 'usage-at-exit.ts')).href

/** In the words of a training's record: seconds by the clock, seconds of all cores together, resident memory at its peak. */
export interface Cost {
  readonly wall_seconds: number
  readonly device_seconds: number
  readonly peak_memory_bytes: number
}

/** Runs the `portllm` command as a user does, Node's start included. Throws with what it said where it fails. */
export async function portllm(args: readonly string[], signal: AbortSignal): Promise<{ stdout: string; cost: Cost }> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-usage-'))
  const usage = join(folder, 'usage.json')
  const started = performance.now()
  try {
    const { stdout } = await run(process.execPath, ['--import', USAGE, MAIN, ...args], { env: { ...process.env, PORTLLM_USAGE: usage }, maxBuffer: 1 << 26, signal })
    const wall_seconds = (performance.now() - started) / 1000
    return { stdout, cost: { wall_seconds, ...(JSON.parse(await readFile(usage, 'utf8')) as Omit<Cost, 'wall_seconds'>) } }
  } catch (error) {
    if (signal.aborted) throw signal.reason
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error)
    throw new Error(`portllm ${args.join(' ')} failed: ${said}`, { cause: error })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
