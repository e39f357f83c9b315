import { spawn } from 'node:child_process'

/** Runs a program to its end; `output` is all that it wrote. `missing`: there is no such program. */
export function run(command: string, args: readonly string[]): Promise<'missing' | { status: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? resolve('missing') : reject(error)))
    child.on('close', (status) => resolve({ status, output }))
  })
}
