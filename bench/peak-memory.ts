import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'

export interface PeakMemory {
  /** Anonymous memory, sampled from outside every 2 ms. */
  readonly anonymous: number
  /** All that is resident, as the kernel has noted it: mapped programs and libraries included. */
  readonly resident: number
}

/** The most memory that a Node process had, in bytes. Throws where it fails. */
export async function peakMemory(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<PeakMemory> {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'], env })
  let errors = ''
  child.stderr.on('data', (chunk) => (errors += chunk))
  const ended = new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
  let [anonymous, resident, alive] = [0, 0, true]
  void ended.then(() => (alive = false), () => (alive = false))
  while (alive) {
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '')
    const read = (key: string) => Number(status.match(new RegExp(`${key}:\\s+(\\d+) kB`))?.[1] ?? 0) * 1024
    anonymous = Math.max(anonymous, read('RssAnon'))
    resident = Math.max(resident, read('VmHWM'))
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  const code = await ended
  if (code !== 0) throw new Error(`node ${args.join(' ')} ended with ${code}: ${errors}`)
  return { anonymous, resident }
}
