/**
 * `node bench/cuda-resources.ts`: compiles the CUDA helper with the pinned compiler and writes what each kernel takes, and the
 * occupancy that follows, into docs/cuda.md and bench/results/cuda-resources.json. Needs no GPU.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ARCHITECTURES, buildCudaHelper } from '../gpu-runner/core/cuda/build.ts'
import { readResources, type KernelResources } from '../gpu-runner/core/cuda/resources.ts'
import { cudaTools } from '../tests/setup/cuda.ts'

const ROOT = resolve(import.meta.dirname, '..')
export const RESULTS = join(ROOT, 'bench/results/cuda-resources.json')
export const DOCUMENT = join(ROOT, 'docs/cuda.md')
const MARKS = ['<!-- resource table -->', '<!-- end of resource table -->'] as const

/** A row per kernel, a column per architecture: registers a thread, blocks a processor (and what limits them), occupancy. */
export function resourceTable(resources: readonly KernelResources[]): string {
  const kernels = [...new Set(resources.map(({ kernel }) => kernel))]
  const cell = (kernel: string, arch: number) => {
    const found = resources.find((one) => one.kernel === kernel && one.arch === arch)!
    return `${found.registers} · ${found.blocksPerProcessor} · ${Math.round(found.occupancy * 100)} %${found.spillBytes ? ` · spills ${found.spillBytes} B` : ''}`
  }
  return [
    `| kernel | threads | shared memory | ${ARCHITECTURES.map((arch) => `sm_${arch}`).join(' | ')} |`,
    `|---|---|---|${ARCHITECTURES.map(() => '---|').join('')}`,
    ...kernels.map((kernel) => {
      const { threads, sharedBytes } = resources.find((one) => one.kernel === kernel)!
      return `| \`${kernel}\` | ${threads} | ${sharedBytes} B | ${ARCHITECTURES.map((arch) => cell(kernel, arch)).join(' | ')} |`
    }),
  ].join('\n')
}

/** The document with this table between its marks. */
export function withTable(document: string, table: string): string {
  const [begin, end] = MARKS.map((mark) => document.indexOf(mark)) as [number, number]
  if (begin < 0 || end < begin) throw new Error(`docs/cuda.md lacks ${MARKS.join(' … ')}`)
  return `${document.slice(0, begin + MARKS[0].length)}\n${table}\n${document.slice(end)}`
}

if (import.meta.main) {
  process.env.PORTLLM_NVCC = (await cudaTools()).nvcc
  const resources = readResources(await readFile(`${await buildCudaHelper()}.txt`, 'utf8'))
  const table = resourceTable(resources)
  await writeFile(RESULTS, `${JSON.stringify({ command: 'node bench/cuda-resources.ts', compiler: 'nvcc 13.0.88', kernels: resources }, null, 2)}\n`)
  await writeFile(DOCUMENT, withTable(await readFile(DOCUMENT, 'utf8'), table))
  console.log(table)
}
