import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import lockfile from 'proper-lockfile'
import { installPython, type TorchBuild } from './python-install.ts'

const CACHE = join(import.meta.dirname, '..', '.cache')
const REQUIREMENTS = join(import.meta.dirname, 'python', 'requirements.txt')
const COMPLETE = 'portllm-complete'
const DAY_MS = 86_400_000

let pending: Promise<string> | undefined

/**
 * Path of a Python interpreter that has everything in gpu-runner/python/requirements.txt. Builds a virtual environment
 * in `.cache/python-<hash of the requirements>` where there is none (about 2 GB and a few minutes; more where there is
 * a GPU); a second process that asks meanwhile waits for the first. Progress goes to stderr, pip's output to
 * `.cache/python.log`. Throws an Error that says what to do when it cannot be built.
 */
export function pythonPath(): Promise<string> {
  pending ??= build().catch((error: unknown) => {
    pending = undefined
    throw error
  })
  return pending
}

async function build(): Promise<string> {
  const torch = torchBuild()
  const hash = createHash('sha256').update(await readFile(REQUIREMENTS)).update(torch).digest('hex').slice(0, 12)
  const folder = join(CACHE, `python-${hash}`)
  const interpreter = join(folder, 'bin', 'python')
  const complete = join(folder, COMPLETE)
  if (existsSync(complete)) return interpreter
  await mkdir(CACHE, { recursive: true })
  const release = await lockfile.lock(folder, { realpath: false, stale: 30_000, retries: { forever: true, minTimeout: 500, maxTimeout: 500 } })
  try {
    if (existsSync(complete)) return interpreter
    await installPython({ folder, interpreter, requirements: REQUIREMENTS, torch, log: join(CACHE, 'python.log') })
    await writeFile(complete, '')
    await removeOthers(folder)
    return interpreter
  } finally {
    await release()
  }
}

/** An image is built where there is no GPU, for machines that have one: PORTLLM_TORCH says so. */
function torchBuild(): TorchBuild {
  const named = process.env.PORTLLM_TORCH
  if (named === undefined || named === '') return existsSync('/dev/nvidiactl') ? 'cuda' : 'cpu'
  if (named !== 'cpu' && named !== 'cuda') throw new Error(`PORTLLM_TORCH is "${named}": it must be cpu or cuda.`)
  return named
}

/** Environments of older requirements, left alone while they are young: another checkout may be using one. */
async function removeOthers(current: string): Promise<void> {
  for (const name of await readdir(CACHE)) {
    const folder = join(CACHE, name)
    if (!/^python-[0-9a-f]{12}$/.test(name) || folder === current) continue
    if (Date.now() - (await stat(folder)).mtimeMs > DAY_MS) await rm(folder, { recursive: true, force: true })
  }
}

if (import.meta.main) process.stdout.write(`${await pythonPath()}\n`)
