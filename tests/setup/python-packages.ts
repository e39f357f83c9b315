import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import lockfile from 'proper-lockfile'
import { pythonPath } from '../../gpu-runner/python-environment.ts'

const CACHE = resolve(import.meta.dirname, '../../.cache')

/**
 * Folder with the packages of PyPI (`name==version`), for PYTHONPATH or the programs in it: `.cache/<name>`, made where it
 * is missing; a second process that asks meanwhile waits for the first. `name` changes whenever the packages do.
 *
 * @throws Error with pip's words where it cannot be made.
 */
export async function installPythonPackages(name: string, packages: readonly string[]): Promise<string> {
  const folder = join(CACHE, name)
  const complete = join(folder, 'complete')
  if (existsSync(complete)) return folder
  const python = await pythonPath()
  await mkdir(CACHE, { recursive: true })
  const release = await lockfile.lock(folder, { realpath: false, stale: 30_000, retries: { forever: true, minTimeout: 500, maxTimeout: 500 } })
  try {
    if (existsSync(complete)) return folder
    await rm(folder, { recursive: true, force: true })
    process.stderr.write(`installing ${packages.join(' ')} into ${folder}\n`)
    const { code, output } = await run(python, ['-m', 'pip', 'install', '--no-deps', '--target', folder, ...packages])
    if (code !== 0) throw new Error(`pip could not install ${packages.join(' ')}:\n${output.slice(-2000)}`)
    await mkdir(complete)
    return folder
  } finally {
    await release()
  }
}

function run(command: string, args: readonly string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', failed)
    child.on('close', (code) => done({ code, output }))
  })
}
