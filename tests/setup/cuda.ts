import { join } from 'node:path'
import { installPythonPackages } from './python-packages.ts'

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

/** The pinned CUDA compiler, so that its registers and machine code are the same on every machine. */
export function cudaTools(): Promise<CudaTools> {
  pending ??= install().catch((error: unknown) => {
    pending = undefined
    throw error
  })
  return pending
}

async function install(): Promise<CudaTools> {
  const bin = join(await installPythonPackages('cuda-13.0.88', PACKAGES), 'nvidia/cu13/bin')
  return { nvcc: join(bin, 'nvcc'), cuobjdump: join(bin, 'cuobjdump') }
}

if (import.meta.main) process.stdout.write(`${JSON.stringify(await cudaTools())}\n`)
