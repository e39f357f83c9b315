import { ARCHITECTURES } from './build.ts'

/** What one kernel takes on one architecture, from the compiler's report, and the occupancy that follows. */
export interface KernelResources {
  readonly kernel: string
  readonly arch: number
  readonly registers: number
  readonly spillBytes: number
  readonly sharedBytes: number
  readonly threads: number
  readonly blocksPerProcessor: number
  /** Resident warps over the most that the processor takes. */
  readonly occupancy: number
  /** What holds the blocks per processor back. */
  readonly limit: 'registers' | 'shared memory' | 'threads' | 'blocks'
}

/** Per multiprocessor, as in NVIDIA's cuda_occupancy.h, which a test holds this against; all have 65,536 registers. */
export const PROCESSORS: Record<(typeof ARCHITECTURES)[number], { threads: number; blocks: number; sharedBytes: number }> = {
  80: { threads: 2048, blocks: 32, sharedBytes: 164 * 1024 },
  86: { threads: 1536, blocks: 16, sharedBytes: 100 * 1024 },
  89: { threads: 1536, blocks: 24, sharedBytes: 100 * 1024 },
  90: { threads: 2048, blocks: 32, sharedBytes: 228 * 1024 },
  100: { threads: 2048, blocks: 32, sharedBytes: 228 * 1024 },
  120: { threads: 1536, blocks: 24, sharedBytes: 100 * 1024 },
}
const REGISTERS = 65_536
/** Registers are given to a warp in units of 256; of shared memory 1 KiB a block is the system's, the rest comes in units of 128 bytes. */
const REGISTER_UNIT = 256
const SYSTEM_SHARED_BYTES = 1024
const SHARED_UNIT = 128

/** Threads and dynamic shared memory of each kernel, as the sources launch it. */
const LAUNCHES: Record<string, { threads: number; sharedBytes: number }> = {
  tiles: { threads: 128, sharedBytes: 64 * 68 * 4 + 16 * 16 * 16 * 2 },
  plain: { threads: 256, sharedBytes: 0 },
  sum: { threads: 8 * 48, sharedBytes: 8 * 48 * 8 },
}

/** Reads what `nvcc -Xptxas -v` printed; one entry per kernel and architecture, in that order. */
export function readResources(report: string): KernelResources[] {
  const found: KernelResources[] = []
  const pattern = /Compiling entry function '(\S+)' for 'sm_(\d+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers([^\n]*)/g
  for (const [, mangled, arch, stack, stores, loads, registers, rest] of report.matchAll(pattern)) {
    const kernel = kernelName(mangled!)
    const launch = LAUNCHES[kernel.replace(/<.*/, '')]
    const processor = PROCESSORS[Number(arch) as keyof typeof PROCESSORS]
    if (!launch || !processor) throw new Error(`an unknown kernel or architecture: ${mangled} for sm_${arch}`)
    const staticBytes = Number(/(\d+) bytes smem/.exec(rest!)?.[1] ?? 0)
    found.push({
      kernel, arch: Number(arch), registers: Number(registers), threads: launch.threads,
      spillBytes: Math.max(Number(stack), Number(stores), Number(loads)),
      sharedBytes: launch.sharedBytes + staticBytes,
      ...occupancy(Number(registers), launch.threads, launch.sharedBytes + staticBytes, processor),
    })
  }
  return found.sort((a, b) => a.kernel.localeCompare(b.kernel) || a.arch - b.arch)
}

function occupancy(registers: number, threads: number, sharedBytes: number, processor: (typeof PROCESSORS)[80]) {
  const warps = threads / 32
  const registersPerWarp = Math.ceil((registers * 32) / REGISTER_UNIT) * REGISTER_UNIT
  const limits = {
    registers: Math.floor(Math.floor(REGISTERS / registersPerWarp) / warps),
    'shared memory': Math.floor(processor.sharedBytes / (Math.ceil(sharedBytes / SHARED_UNIT) * SHARED_UNIT + SYSTEM_SHARED_BYTES)),
    threads: Math.floor(processor.threads / threads),
    blocks: processor.blocks,
  } as const
  const [limit, blocksPerProcessor] = (Object.entries(limits) as [keyof typeof limits, number][]).reduce((least, entry) => (entry[1] < least[1] ? entry : least))
  return { limit, blocksPerProcessor, occupancy: (blocksPerProcessor * threads) / processor.threads }
}

/** `_ZN…5tilesINS0_4BF16EEEvNS0_4BandE` is `tiles<BF16>`. */
export function kernelName(mangled: string): string {
  const match = /(tiles|plain|sum)I(?:NS0_\d(\w+?)E|([fd]))EEv/.exec(mangled)
  if (!match) throw new Error(`a kernel with an unknown name: ${mangled}`)
  return `${match[1]}<${match[2] ?? { f: 'float', d: 'double' }[match[3]!]}>`
}
