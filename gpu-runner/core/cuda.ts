import { existsSync } from 'node:fs'
import { buildCudaHelper, builtCudaHelper } from './cuda/build.ts'
import { CoreError, type Library } from './library.ts'

/** One of these is there wherever a driver is: Linux, and Linux under Windows. */
const DRIVER_FILES = ['/dev/nvidiactl', '/dev/dxg']

/**
 * Starts the CUDA helper, compiling it first where needed, and says which GPUs it uses.
 *
 * @throws Error where there is no driver, GPU or compiler; the message says what to do.
 */
export async function startCuda(library: Library): Promise<string> {
  if (!hasDriver()) throw new CoreError('unsupported', `this machine cannot run the core's path "cuda": it has no NVIDIA driver (${DRIVER_FILES.join(' or ')})`)
  const helper = await buildCudaHelper()
  try {
    return await start(library, helper)
  } catch (error) {
    if (error instanceof CoreError) error.message = `this machine cannot run the core's path "cuda": ${error.message}`
    throw error
  }
}

/**
 * The same where a GPU may be used but need not: with a driver and a helper that is built already. Otherwise, and where
 * the start fails, the sentence says why the processor is used.
 */
export async function tryCuda(library: Library): Promise<{ started: boolean; note: string }> {
  if (!hasDriver()) return { started: false, note: 'no NVIDIA driver: the processor is used' }
  try {
    const helper = await builtCudaHelper()
    if (!helper) return { started: false, note: 'an NVIDIA driver, but no CUDA helper (npm run build:cuda): the processor is used' }
    return { started: true, note: await start(library, helper) }
  } catch (error) {
    return { started: false, note: `${error instanceof Error ? error.message : String(error)}: the processor is used` }
  }
}

let starting: Promise<string> | undefined

/** One helper serves the whole process; where it has ended, another takes its place. */
function start(library: Library, helper: string): Promise<string> {
  if (starting && library.supports('cuda')) return starting
  starting = library.startCuda(helper)
  starting.catch(() => (starting = undefined))
  return starting
}

/** A helper that was built elsewhere is the user's word that it can run. */
function hasDriver(): boolean {
  return Boolean(process.env.PORTLLM_CUDA_HELPER) || DRIVER_FILES.some((path) => existsSync(path))
}
