import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { DOCUMENT, RESULTS, resourceTable, withTable } from '../../bench/cuda-resources.ts'
import { run } from '../../gpu-runner/core/run-command.ts'
import { ARCHITECTURES, buildCudaHelper } from '../../gpu-runner/core/cuda/build.ts'
import { PROCESSORS, readResources, type KernelResources } from '../../gpu-runner/core/cuda/resources.ts'
import { cudaTools, type CudaTools } from '../setup/cuda.ts'
import { count, readCode, type KernelCode } from './sass.ts'

const FORMATS = ['F32', 'F16', 'BF16', 'F64', 'F8E4M3', 'F8E5M2']
let tools: CudaTools
let helper: string
let resources: KernelResources[]
let code: KernelCode[]

beforeAll(async () => {
  tools = await cudaTools()
  process.env.PORTLLM_NVCC = tools.nvcc
  helper = await buildCudaHelper()
  resources = readResources(await readFile(`${helper}.txt`, 'utf8'))
  code = await readCode(tools.cuobjdump, helper)
}, 600_000)

function tiles(format: string): KernelCode[] {
  return code.filter(({ kernel }) => kernel === `tiles<${format}>`)
}

test('one program has machine code for every architecture, and PTX of the newest', async () => {
  const kernels = [...FORMATS.flatMap((format) => [`plain<${format}>`, `tiles<${format}>`]), 'sum<double>', 'sum<float>'].sort()
  for (const arch of ARCHITECTURES) {
    expect(code.filter((one) => one.arch === arch).map(({ kernel }) => kernel).sort(), `sm_${arch}`).toEqual(kernels)
  }
  const ptx = await run(tools.cuobjdump, ['--list-ptx', helper])
  expect(ptx).toMatchObject({ status: 0 })
  expect(ptx === 'missing' ? '' : ptx.output).toContain(`sm_${ARCHITECTURES.at(-1)}.ptx`)
})

test('no kernel spills a register, and docs/cuda.md has the registers, shared memory and occupancy that the compiler gives', async () => {
  expect(resources).toHaveLength(ARCHITECTURES.length * (2 * FORMATS.length + 2))
  expect(resources.filter(({ spillBytes }) => spillBytes > 0)).toEqual([])
  for (const one of code) expect(count(one, /^(LDL|STL)/), `${one.kernel} for sm_${one.arch} uses local memory`).toBe(0)
  expect(JSON.parse(await readFile(RESULTS, 'utf8')).kernels, 'run node bench/cuda-resources.ts').toEqual(resources)
  const document = await readFile(DOCUMENT, 'utf8')
  expect(document, 'run node bench/cuda-resources.ts').toBe(withTable(document, resourceTable(resources)))
})

test('occupancy is what the header cuda_occupancy.h gives', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-occupancy-'))
  try {
    const program = join(folder, 'occupancy')
    const compiled = await run('c++', ['-std=c++17', `-I${join(dirname(tools.nvcc), '../include')}`, '-o', program, join(import.meta.dirname, 'occupancy.cpp')])
    expect(compiled, compiled === 'missing' ? 'no compiler' : compiled.output).toMatchObject({ status: 0 })
    const lines = resources.map(({ arch, registers, threads, sharedBytes }) => {
      const processor = PROCESSORS[arch as keyof typeof PROCESSORS]
      return [Math.floor(arch / 10), arch % 10, processor.threads, processor.sharedBytes, registers, threads, sharedBytes].join(' ')
    })
    const answer = execFileSync(program, { input: lines.join('\n'), encoding: 'utf8' })
    expect(answer.trim().split('\n').map(Number)).toEqual(resources.map(({ blocksPerProcessor }) => blocksPerProcessor))
  } finally {
    await rm(folder, { recursive: true })
  }
})

describe('machine code', () => {
  test('multiply-adds, products and sums are those of the rule, each in its own instruction', () => {
    for (const format of FORMATS) {
      for (const one of tiles(format)) {
        const where = `tiles<${format}> for sm_${one.arch}`
        const real = format === 'F64' ? 'D' : 'F'
        // The inner loop is there seven times over, unrolled and not, with 8 x 4 multiply-adds a rank. The 32 elements of a
        // thread are finished twice over, in eights that are finite and one by one: three squares, the difference, the residual.
        const squares = 2 * 3 * 32
        const differences = 2 * 2 * 32
        expect(count(one, /^FFMA/), where).toBe(7 * 32 + (real === 'F' ? squares : 0))
        expect(count(one, /^DMUL/), where).toBe(real === 'D' ? squares : 0)
        // fp8 is widened and rounded with exact products and sums of its own.
        if (format.startsWith('F8')) continue
        // s·d and t + q, for the first product and for the others; and W + t, which the compiler may keep for the second finish.
        expect(count(one, /^FMUL/), where).toBe(2 * 32)
        const sums = real === 'F' ? count(one, /^FADD/) - 2 * 32 - differences : count(one, /^DADD/) - squares - differences
        expect([32, 2 * 32], where).toContain(sums)
        if (real === 'D') expect(count(one, /^FADD/), where).toBe(2 * 32)
      }
    }
  })

  test('nothing is fused in float64, flushed to zero, or given to tensor cores', () => {
    for (const one of code) {
      expect(count(one, /^DFMA|\.FTZ|^(HMMA|IMMA|DMMA|QMMA|WGMMA|UTC|HGMMA)/), `${one.kernel} for sm_${one.arch}`).toBe(0)
    }
  })

  test('rows and factors move in accesses of 16 bytes', () => {
    for (const format of FORMATS) {
      const bytes = { F32: 4, F16: 2, BF16: 2, F64: 8 }[format] ?? 1
      // A thread has 32 elements: 4 pieces of 8.
      const accesses = bytes === 1 ? 4 : (32 * bytes) / 16
      const width = bytes === 1 ? '64' : '128'
      for (const one of tiles(format)) {
        const where = `tiles<${format}> for sm_${one.arch}`
        expect(one.instructions.get(`LDG.E.EF.${width}`), where).toBe(accesses)
        expect(one.instructions.get(`STG.E.EF.${width}`)! - (width === '128' && format !== 'F64' ? 6 : 0), where).toBe(accesses)
        // What is narrower is the list of products (and figures in float64).
        expect(count(one, /^LDG/) - count(one, /^LDG.*\.128/), where).toBe(3 + (bytes === 1 ? accesses : 0))
        expect(count(one, /^(LDS|STS)/), where).toBe(count(one, /^(LDS|STS)\.128/))
      }
    }
  })
})

test('where it sees no GPU the helper says so and ends', async () => {
  process.env.CUDA_VISIBLE_DEVICES = '-1'
  const result = await run(helper, ['throughput', '64', '64', '1'])
  expect(result).toMatchObject({ status: 1 })
  expect(result === 'missing' ? '' : result.output).toMatch(/^no GPU: .*CUDA error (35|100)/)
})
