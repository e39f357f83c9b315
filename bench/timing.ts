import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { promisify } from 'node:util'

export interface Timing {
  readonly seconds: readonly number[]
  readonly median: number
  readonly minimum: number
}

export const run = promisify(execFile)

export function timing(seconds: readonly number[]): Timing {
  return { seconds, median: middle(seconds), minimum: Math.min(...seconds) }
}

export function middle(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

export async function timed(body: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await body()
  return (performance.now() - start) / 1000
}

/**
 * What comes before every timed run: its output is removed, dirty pages are written out, and a process writes to
 * `bytes` of memory and ends. Virtual machines give free memory back to their host and wait where they need it again;
 * without this, that wait would be most of what is measured, of all commands alike.
 */
export async function prepare(output: string, bytes = 3e9): Promise<void> {
  await rm(output, { recursive: true, force: true })
  await run('sync')
  await run(process.execPath, ['-e', `for (let i = 0; i < ${Math.ceil(bytes / 2 ** 30)}; i++) globalThis['m' + i] = Buffer.alloc(2 ** 30, 1)`])
}
