import { createHash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { lock } from 'proper-lockfile'
import { run } from '../run-command.ts'

const SOURCES = import.meta.dirname
const CORE = dirname(SOURCES)
const OUTPUT = join(SOURCES, '..', '..', '..', 'build', 'core')

/** Machine code for each of these, and PTX of the last for what comes after it. */
export const ARCHITECTURES = [80, 86, 89, 90, 100, 120] as const

/** No contraction and no flushing of subnormals: the rule names every fused operation (docs/numerics.md). */
const FLAGS = ['-std=c++17', '-O3', '-fmad=false', '-ftz=false', '-cudart', 'static', '-Xptxas', '-v', '-t', '0']

function codeFlags(): string[] {
  const last = ARCHITECTURES.at(-1)
  return [...ARCHITECTURES.map((arch) => ['-gencode', `arch=compute_${arch},code=sm_${arch}`]), ['-gencode', `arch=compute_${last},code=compute_${last}`]].flat()
}

/**
 * Path of the CUDA helper, compiled first where no helper of these sources exists yet: `build/core/portllm-cuda-<hash>`,
 * one program for all architectures with the runtime linked in. What the compiler says of registers and spills lies
 * beside it, `….txt`. Needs nvcc 12.8 or newer: PORTLLM_NVCC, or on the PATH, or in /usr/local/cuda.
 * PORTLLM_CUDA_HELPER names a helper built elsewhere instead.
 *
 * @throws Error where no nvcc is found, or it refuses.
 */
export async function buildCudaHelper(): Promise<string> {
  const existing = await builtCudaHelper()
  if (existing) return existing
  const helper = await helperPath()
  await mkdir(OUTPUT, { recursive: true })
  const release = await lock(SOURCES, { lockfilePath: `${OUTPUT}/cuda.lock`, stale: 120_000, retries: { retries: 6000, minTimeout: 100, maxTimeout: 100 } })
  try {
    if (!existsSync(helper)) await compile(helper)
  } finally {
    await release()
  }
  return helper
}

/** The helper that buildCudaHelper would give without compiling, or null. */
export async function builtCudaHelper(): Promise<string | null> {
  const prebuilt = process.env.PORTLLM_CUDA_HELPER
  if (prebuilt && !existsSync(prebuilt)) throw new Error(`PORTLLM_CUDA_HELPER names ${prebuilt}, which does not exist`)
  const helper = prebuilt || (await helperPath())
  return existsSync(helper) ? helper : null
}

/** The .cu files and every header of ours that they include, in a fixed order. */
export async function cudaSources(): Promise<{ units: string[]; headers: string[] }> {
  const units = (await readdir(SOURCES)).filter((name) => name.endsWith('.cu')).sort().map((name) => join(SOURCES, name))
  const headers = new Set<string>()
  const waiting = [...units]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    for (const [, name] of (await readFile(path, 'utf8')).matchAll(/^#include "(.+)"$/gm)) {
      const header = join(dirname(path), name!)
      if (!headers.has(header)) waiting.push(header)
      headers.add(header)
    }
  }
  return { units, headers: [...headers].sort() }
}

async function helperPath(): Promise<string> {
  const { units, headers } = await cudaSources()
  const hash = createHash('sha256')
  for (const path of [...units, ...headers]) hash.update(`${path.slice(CORE.length)}\0`).update(await readFile(path)).update('\0')
  hash.update(JSON.stringify([FLAGS, codeFlags(), process.env.PORTLLM_NVCC ?? '']))
  return join(OUTPUT, `portllm-cuda-${hash.digest('hex').slice(0, 12)}`)
}

/** @throws Error where there is none. */
export function findNvcc(): string {
  const named = process.env.PORTLLM_NVCC
  if (named) {
    if (!existsSync(named)) throw new Error(`PORTLLM_NVCC names ${named}, which does not exist`)
    return named
  }
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/cuda/bin', '/opt/cuda/bin']
  const found = folders.map((folder) => join(folder, 'nvcc')).find((path) => existsSync(path))
  if (found) return found
  throw new Error(
    'no nvcc found: the CUDA helper is compiled at first use. Install the CUDA toolkit 12.8 or newer (or `pip install ' +
      'nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime`) and set PORTLLM_NVCC to its nvcc, or set ' +
      'PORTLLM_CUDA_HELPER to a helper that was built elsewhere',
  )
}

async function compile(helper: string): Promise<void> {
  const nvcc = findNvcc()
  const { units } = await cudaSources()
  const temporary = `${helper}.${randomUUID()}.tmp`
  try {
    const version = await run(nvcc, ['--version'])
    // NVIDIA's Python packages have their libraries in lib, where nvcc looks in lib64.
    const result = await run(nvcc, [...FLAGS, ...codeFlags(), `-L${join(dirname(nvcc), '..', 'lib')}`, '-o', temporary, ...units])
    if (result === 'missing' || version === 'missing') throw new Error(`${nvcc} cannot be started`)
    if (result.status !== 0) throw new Error(`the CUDA helper does not compile with ${nvcc} (exit ${result.status}):\n${result.output.slice(0, 4000)}`)
    await writeFile(`${helper}.txt`, `${version.output}\n${result.output}`)
    await rename(temporary, helper)
  } finally {
    await rm(temporary, { force: true })
  }
}

if (process.argv[1] && import.meta.filename === process.argv[1]) {
  console.log(await buildCudaHelper())
}
