import { openLibrary, PATHS, type CorePath } from '../gpu-runner/core/library.ts'
import { middle } from './timing.ts'

export interface KernelFigure {
  readonly path: CorePath
  readonly threads: number
  readonly rank: number
  readonly figures: boolean
  /** Bytes of W a second, and over memcpy of the same bytes, and over the roofline min(memcpy, peak FMA). */
  readonly bytesPerSecond: number
  readonly overMemcpy: number
  readonly overRoofline: number
}

export interface KernelBench {
  readonly memcpyBytesPerSecond: number
  readonly fmaPerSecond: number
  readonly kernels: readonly KernelFigure[]
}

const ROWS = 16_384
const COLS = 2048
const RANKS = [8, 16, 64]

/** The kernel alone, from memory to memory in bf16, beside memcpy and the measured multiply-add rate, in turns. */
export async function benchKernel(threads: number, rounds: number): Promise<KernelBench> {
  const library = await openLibrary()
  const path = (Object.keys(PATHS) as CorePath[]).findLast((name) => library.supports(name))!
  const w = new Uint8Array(ROWS * COLS * 2)
  for (let i = 0; i < w.length; i += 2) {
    w[i] = i * 7
    w[i + 1] = 0x3c
  }
  const out = new Uint8Array(w.length)
  const matrix = (rows: number, cols: number) => ({ bytes: new Uint8Array(Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i) / 50).buffer), dtype: 0, offset: 0, strides: [cols, 1] as const })
  const kernels = RANKS.flatMap((rank) => {
    const tensor = library.createTensor(2, ROWS, COLS)
    library.addProduct(tensor, { left: matrix(ROWS, rank), right: matrix(rank, COLS), rank, scale: 2 })
    return [false, true].map((figures) => ({ rank, figures, tensor, seconds: [] as number[] }))
  })
  const copies: number[] = []
  const rates: number[] = []
  // The first round touches all memory and counts for nothing.
  for (let round = 0; round <= rounds; round++) {
    const note = (to: number[], value: number) => void (round > 0 && to.push(value))
    note(copies, await seconds(() => library.copyMemory(out, w, threads)))
    note(rates, await library.fmaRate(path, threads))
    for (const { tensor, figures, seconds: all } of kernels) {
      note(all, await seconds(() => library.merge(tensor, path, threads, figures ? 'all' : 'none', 0, ROWS, w, out)))
    }
  }
  for (const { tensor } of kernels) library.free(tensor)
  const memcpy = w.length / middle(copies)
  const fma = middle(rates)
  return {
    memcpyBytesPerSecond: memcpy,
    fmaPerSecond: fma,
    kernels: kernels.map(({ rank, figures, seconds: all }) => {
      const rate = w.length / middle(all)
      return { path, threads, rank, figures, bytesPerSecond: rate, overMemcpy: rate / memcpy, overRoofline: rate / Math.min(memcpy, (fma / rank) * 2) }
    }),
  }
}

async function seconds(body: () => Promise<void>): Promise<number> {
  const start = performance.now()
  await body()
  return (performance.now() - start) / 1000
}
