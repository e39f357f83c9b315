import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import lockfile from 'proper-lockfile'
import { pythonPath } from '../../gpu-runner/python-environment.ts'

const FOLDER = resolve(import.meta.dirname, '../../.cache/cuda-13.0.88')

/** NVIDIA's compiler and disassembler as Python packages; they need no GPU. The disassembler's oldest release reads 13.0's code. */
const PACKAGES = [
  'nvidia-cuda-nvcc==13.0.88', 'nvidia-nvvm==13.0.88', 'nvidia-cuda-crt==13.0.88', 'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cuobjdump==13.2.51', 'nvidia-cuda-nvdisasm==13.2.51',
]

export interface CudaTools {
  readonly nvcc: string
  readonly cuobjdump: string
}

let pending: Promise<CudaTools> | undefined

/**
 * The pinned CUDA compiler, so that its registers and machine code are the same on every machine. Installed into
 * .cache where it is missing; a second process that asks meanwhile waits for the first.
 */
export function cudaTools(): Promise<CudaTools> {
  pending ??= install().catch((error: unknown) => {
    pending = undefined
    throw error
  })
  return pending
}

async function install(): Promise<CudaTools> {
  const bin = join(FOLDER, 'nvidia/cu13/bin')
  const tools = { nvcc: join(bin, 'nvcc'), cuobjdump: join(bin, 'cuobjdump') }
  const stamp = join(FOLDER, 'complete')
  if (existsSync(stamp)) return tools
  const python = await pythonPath()
  await mkdir(resolve(FOLDER, '..'), { recursive: true })
  const release = await lockfile.lock(FOLDER, { realpath: false, stale: 30_000, retries: { forever: true, minTimeout: 500, maxTimeout: 500 } })
  try {
    if (existsSync(stamp)) return tools
    await rm(FOLDER, { recursive: true, force: true })
    process.stderr.write(`cuda: installing ${PACKAGES.join(' ')} into ${FOLDER}\n`)
    const output = await run(python, ['-m', 'pip', 'install', '--no-deps', '--target', FOLDER, ...PACKAGES])
    if (!existsSync(tools.nvcc) || !existsSync(tools.cuobjdump)) throw new Error(`NVIDIA's compiler could not be installed from PyPI:\n${output.slice(-2000)}`)
    await mkdir(stamp)
    return tools
  } finally {
    await release()
  }
}

function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', failed)
    child.on('close', () => done(output))
  })
}

if (import.meta.main) process.stdout.write(`${JSON.stringify(await cudaTools())}\n`)
