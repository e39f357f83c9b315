import { openLibrary, PATHS, type CorePath } from '../gpu-runner/core/library.ts'

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

/** The kernel alone, from memory to memory in bf16, beside memcpy and the measured multiply-add rate. */
export async function benchKernel(threads: number, repeats: number): Promise<KernelBench> {
  const library = await openLibrary()
  const path = (Object.keys(PATHS) as CorePath[]).findLast((name) => library.supports(name))!
  const w = new Uint8Array(ROWS * COLS * 2)
  for (let i = 0; i < w.length; i += 2) {
    w[i] = i * 7
    w[i + 1] = 0x3c
  }
  const out = new Uint8Array(w.length)
  const memcpy = w.length / (await median(repeats, () => library.copyMemory(out, w, threads)))
  const rates: number[] = []
  for (let i = 0; i < repeats; i++) rates.push(await library.fmaRate(path, threads))
  const fma = middle(rates)

  const kernels: KernelFigure[] = []
  for (const rank of [8, 16, 64]) {
    const tensor = library.createTensor(2, ROWS, COLS)
    const matrix = (rows: number, cols: number) => ({ bytes: new Uint8Array(Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i) / 50).buffer), dtype: 0, offset: 0, strides: [cols, 1] as const })
    library.addProduct(tensor, { left: matrix(ROWS, rank), right: matrix(rank, COLS), rank, scale: 2 })
    const roofline = Math.min(memcpy, (fma / rank) * 2)
    for (const figures of [false, true]) {
      const rate = w.length / (await median(repeats, () => library.merge(tensor, path, threads, figures ? 'all' : 'none', 0, ROWS, w, out)))
      kernels.push({ path, threads, rank, figures, bytesPerSecond: rate, overMemcpy: rate / memcpy, overRoofline: rate / roofline })
    }
    library.free(tensor)
  }
  return { memcpyBytesPerSecond: memcpy, fmaPerSecond: fma, kernels }
}

async function median(repeats: number, run: () => Promise<void>): Promise<number> {
  const seconds: number[] = []
  await run()
  for (let i = 0; i < repeats; i++) {
    const start = performance.now()
    await run()
    seconds.push((performance.now() - start) / 1000)
  }
  return middle(seconds)
}

export function middle(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}
