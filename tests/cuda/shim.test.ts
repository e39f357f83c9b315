import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { run } from '../../gpu-runner/core/run-command.ts'
import { loadCore } from '../../gpu-runner/core/core.ts'
import { CoreError, openLibrary, type Library } from '../../gpu-runner/core/library.ts'
import type { Segment } from '../../gpu-runner/core/merged-file.ts'
import { writeMergedFiles } from '../../gpu-runner/core/merged-files.ts'
import { build } from '../../gpu-runner/core/random-merge.ts'
import { openTensor } from '../../gpu-runner/core/tensor-merge.ts'
import { writeHeader } from '../../patch/safetensors.ts'
import { checkAgainstScalar, checkEveryValue, checkShapes, engines, largeTensor, mergeInBands, NARROW_DTYPES, shapes } from './identity.ts'
import { buildShimHelper, type Change } from './shim.ts'

let library: Library
let shim: string

beforeAll(async () => {
  library = await openLibrary()
  shim = await buildShimHelper()
}, 300_000)

const inherited = { ...process.env }
afterEach(() => {
  for (const name of Object.keys(process.env)) if (/^(CUDA_SHIM|PORTLLM)_|SAN_OPTIONS$/.test(name)) delete process.env[name]
  Object.assign(process.env, inherited)
})

/** Starts the helper anew, so that it inherits these variables. */
function start(variables: Record<string, string | number> = {}, helper = shim): Promise<string> {
  for (const [name, value] of Object.entries(variables)) process.env[name] = String(value)
  return library.startCuda(helper)
}

const SMALL = { rows: 140, cols: 200, rank: 40 }

describe.each(['plain', 'tiles'])('the %s kernel gives the bytes and figures of the scalar path', (kernel) => {
  test.each(['forward', 'reverse', '17'])('with the threads of a block in the order %s', async (order) => {
    await start({ PORTLLM_CUDA_KERNEL: kernel, CUDA_SHIM_ORDER: order })
    await checkShapes(library, shapes(SMALL), 30)
  })

  test('for every narrow value of W, and at rank 600', async () => {
    await start({ PORTLLM_CUDA_KERNEL: kernel })
    for (const dtype of NARROW_DTYPES) await checkEveryValue(library, dtype)
    const { spec, w } = largeTensor('BF16', 70, 130, [600, 1])
    await checkAgainstScalar(library, spec, w)
  })
})

describe('the engine', () => {
  test('bands of several slots on several GPUs, aligned and not, tensors at the same time', async () => {
    expect(await start({ CUDA_SHIM_DEVICES: 3 })).toBe('3 GPUs: CPU shim (sm_80), CPU shim (sm_80), CPU shim (sm_80)')
    const tensors = [largeTensor('BF16', 3001, 704, [5]), largeTensor('F32', 1500, 129, [3, 2]), largeTensor('F8_E4M3', 20_000, 3, [1])]
    await Promise.all(tensors.map(({ spec, w }) => checkAgainstScalar(library, spec, w, [Math.floor(spec.rows / 3) + 1])))
  })

  test('rows as long as a slot, and longer ones by the processor', async () => {
    await start({ PORTLLM_CUDA_KERNEL: 'plain' })
    const longest = largeTensor('F64', 1, 2 ** 19, [1])
    await checkAgainstScalar(library, longest.spec, longest.w)
    const longer = largeTensor('BF16', 1, 2 ** 21 + 1, [1])
    const { path, out } = await mergeInBands(engines(library).cuda, longer.spec, longer.w, [])
    expect(path).toBe('scalar')
    expect(Buffer.from(out).equals((await mergeInBands(engines(library).scalar, longer.spec, longer.w, [])).out)).toBe(true)
  })

  test('other contributions are computed by the processor, and the tensor says so', async () => {
    await start()
    for (const kinds of [['dora-rows'], ['product', 'dense'], ['replace']] as const) {
      const { spec } = build({ dtype: 'BF16', rows: 5, cols: 7, kinds, ranks: [2], values: 'ordinary', factorDtype: 'F32', operandDtype: 'F32', weight: 1, seed: 1 })
      const merge = openTensor(engines(library).cuda, spec)
      expect(merge.path).toBe('scalar')
      merge.finish()
    }
  })

  test('a merged file through the GPU equals that of the processor', async () => {
    await start({ CUDA_SHIM_DEVICES: 2 })
    const folder = await mkdtemp(join(tmpdir(), 'portllm-cuda-'))
    try {
      const [a, b, c] = [largeTensor('BF16', 3000, 800, [4]), largeTensor('F16', 77, 33, [2, 3]), largeTensor('BF16', 1, 2 ** 21 + 1, [1])]
      const header = writeHeader([a, b, c].map(({ spec }, i) => ({ name: String(i), dtype: spec.dtype, shape: [spec.rows, spec.cols] })))
      const source = join(folder, 'source')
      await writeFile(source, Buffer.concat([header, a.w, b.w, c.w]))
      let offset = header.byteLength
      const segments: Segment[] = [{ kind: 'copy', offset: 0, length: offset }]
      for (const { spec, w } of [a, b, c]) {
        segments.push({ kind: 'merge', offset, ...spec })
        offset += w.length
      }
      const [cuda, scalar] = [join(folder, 'cuda'), join(folder, 'scalar')]
      const [actual] = (await writeMergedFiles(engines(library).cuda, { files: [{ source, destination: cuda, segments }] })).files
      const [expected] = (await writeMergedFiles(engines(library).scalar, { files: [{ source, destination: scalar, segments }] })).files
      expect(actual!.paths).toEqual(['cuda', 'cuda', 'scalar'])
      expect(actual!.figures).toEqual(expected!.figures)
      expect((await readFile(cuda)).equals(await readFile(scalar))).toBe(true)
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  test('factors of tensors that are gone leave the GPU', async () => {
    const { spec, w } = largeTensor('BF16', 1, 64, [16_000])
    await start({ CUDA_SHIM_MEMORY: 192 * 2 ** 20, PORTLLM_CUDA_KERNEL: 'plain' })
    // Four mebibytes each: three of them at once do not fit beside the lanes.
    for (let i = 0; i < 6; i++) await checkAgainstScalar(library, spec, w)
  })
})

describe('where something is missing or fails', () => {
  test('no driver or GPU: an error where CUDA was asked for, and otherwise the processor, with the reason', async () => {
    Object.assign(process.env, { PORTLLM_CUDA_HELPER: shim, CUDA_SHIM_DEVICES: '0' })
    await start({}, shim).catch(() => undefined)
    await expect(loadCore({ path: 'cuda' })).rejects.toThrow(/this machine cannot run the core's path "cuda": no GPU: this machine has no NVIDIA driver/)
    process.env.PORTLLM_CORE_PATH = 'cuda'
    await expect(loadCore()).rejects.toThrow(CoreError)
    await expect(loadCore({ gpu: true })).rejects.toThrow(/no NVIDIA driver/)
    delete process.env.PORTLLM_CORE_PATH
    const core = await loadCore({ gpu: true })
    expect(core.path).not.toBe('cuda')
    expect(core.gpu).toMatch(/^no GPU: this machine has no NVIDIA driver .*: the processor is used$/)
    expect((await loadCore()).gpu).toBeNull()
  })

  test('with a GPU, the path is chosen where GPUs are allowed', async () => {
    process.env.PORTLLM_CUDA_HELPER = shim
    const core = await loadCore({ gpu: true })
    expect(core).toMatchObject({ path: 'cuda', gpu: '1 GPU: CPU shim (sm_80)' })
    expect((await loadCore()).path).not.toBe('cuda')
  })

  test('an old GPU, an unknown kernel, a helper that is none', async () => {
    await expect(start({ CUDA_SHIM_MAJOR: 7 })).rejects.toThrow('no GPU: sm_80 or newer is needed, and here are only CPU shim (sm_70)')
    await expect(start({ CUDA_SHIM_MAJOR: 8, PORTLLM_CUDA_KERNEL: 'fast' })).rejects.toThrow(/PORTLLM_CUDA_KERNEL is "fast": expected tiles or plain/)
    await expect(start({}, '/nowhere/portllm-cuda')).rejects.toThrow(/cannot be started|has ended with exit code 127/)
    await expect(start({}, '/bin/true')).rejects.toThrow(/has ended with exit code 0/)
  })

  test('out of memory is said with the sizes, and smaller tensors still merge', async () => {
    await start({ CUDA_SHIM_MEMORY: 192 * 2 ** 20 })
    const large = largeTensor('BF16', 64, 64, [40_000])
    await expect(checkAgainstScalar(library, large.spec, large.w)).rejects.toMatchObject({ status: 'memory', message: expect.stringMatching(/GPU 0 \(CPU shim \(sm_80\)\) has no room for the factors: they take 19\.5 MiB, and \d+\.\d of its 192\.0 MiB are free/) })
    const small = largeTensor('BF16', 64, 64, [3])
    await checkAgainstScalar(library, small.spec, small.w)
    await expect(start({ CUDA_SHIM_MEMORY: 2 ** 20 })).rejects.toThrow(/reserving memory for rows: out of memory \(cudaErrorMemoryAllocation\)/)
  })

  test('every CUDA call that fails is an error with its reason, never wrong bytes', async () => {
    // Rows that are copied as they are, and rows that are spread out.
    for (const cols of [64, 65]) {
      const { spec, w } = largeTensor('BF16', 9, cols, [3])
      const attempt = async (call: number) => {
        await start({ CUDA_SHIM_FAIL_AT: call })
        await checkAgainstScalar(library, spec, w)
      }
      // Calls of the start come before those of the merge; the first few of them are those of the first lane.
      let [failing, call] = [0, 1]
      for (let startCalls = 0; ; call++) {
        const error = await attempt(call).then(() => null, (reason: unknown) => reason)
        if (error === null) break
        failing++
        expect(error).toBeInstanceOf(CoreError)
        expect(error).toMatchObject({ message: expect.stringMatching(/an error of the shim|^no GPU/) })
        if (call === 12 && !startCalls) {
          startCalls = await firstCallAfterStart()
          call = startCalls - 1
        }
      }
      expect(failing).toBeGreaterThan(12 + 10)
    }
  }, 240_000)

  /** By bisection: a call of the start that fails ends it. */
  async function firstCallAfterStart(): Promise<number> {
    let [low, high] = [12, 400]
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (await start({ CUDA_SHIM_FAIL_AT: middle }).then(() => true, () => false)) high = middle
      else low = middle
    }
    return high
  }

  test('a crash of the helper is an error, this process goes on, and the next start works', async () => {
    const { spec, w } = largeTensor('BF16', 100, 64, [3])
    await start()
    const call = (await firstCallAfterStart()) + 6
    delete process.env.CUDA_SHIM_FAIL_AT
    await start({ CUDA_SHIM_CRASH_AT: call })
    await expect(checkAgainstScalar(library, spec, w)).rejects.toMatchObject({ status: 'device', message: expect.stringMatching(/the CUDA helper has ended by signal 6/) })
    expect(library.supports('cuda')).toBe(false)
    await expect(checkAgainstScalar(library, spec, w)).rejects.toThrow()
    delete process.env.CUDA_SHIM_CRASH_AT
    await start()
    await checkAgainstScalar(library, spec, w)
  })
})

describe('npm run test:gpu', () => {
  const script = join(import.meta.dirname, 'gpu.ts')
  const output = join(tmpdir(), `portllm-test-gpu-${process.pid}.json`)

  test('passes on the shim, measures, and writes what it found', async () => {
    Object.assign(process.env, { PORTLLM_CUDA_HELPER: shim, CUDA_SHIM_DEVICES: '2', CUDA_SHIM_MEMORY: String(220 * 2 ** 20) })
    const result = await run(process.execPath, [script, '--quick', '--output', output])
    expect(result, result === 'missing' ? '' : result.output).toMatchObject({ status: 0, output: expect.stringMatching(/\| r=16, with figures \|[\s\S]*\n8 passed, 0 failed\n$/) })
    const written = JSON.parse(await readFile(output, 'utf8'))
    await rm(output)
    expect(written).toMatchObject({ gpus: '2 GPUs: CPU shim (sm_80), CPU shim (sm_80)', devices: [{ name: 'CPU shim (sm_80)' }, {}], core: [{ rank: 8 }, {}, {}] })
  })

  test('without a GPU it says so and fails', async () => {
    Object.assign(process.env, { PORTLLM_CUDA_HELPER: shim, CUDA_SHIM_DEVICES: '0' })
    const result = await run(process.execPath, [script, '--quick', '--output', output])
    expect(result).toMatchObject({ status: 1, output: expect.stringMatching(/^test:gpu needs an NVIDIA GPU, a driver and a helper for it: this machine cannot run the core's path "cuda": no GPU: /m) })
  })
})

describe('broken on purpose', () => {
  const MUTANTS: readonly (Change & { readonly name: string })[] = [
    { name: 'no barrier before a chunk is overwritten', file: 'merge_tiles.cu', from: '__syncthreads();  // all have read the chunk before', to: '' },
    { name: 'no barrier after a chunk is written', file: 'merge_tiles.cu', from: '      __syncthreads();\n#pragma unroll 4', to: '' },
    { name: 'no barrier before t is read', file: 'merge_tiles.cu', from: 'first_row / kGroupRows);\n  __syncthreads();', to: 'first_row / kGroupRows);' },
    { name: 'a barrier that some threads do not reach', file: 'merge_tiles.cu', from: '  accumulate(band, shared', to: '  if (!wanted) return;\n  accumulate(band, shared' },
    { name: 'one column off', file: 'merge_tiles.cu', from: 'shared.right[k][vector]);', to: 'shared.right[k][(vector + 1) % kVectors]);' },
    { name: 'one rank short', file: 'merge_tiles.cu', from: 'k < depth; k++', to: 'k + 1 < depth; k++' },
    { name: 'a product and its sum rounded once instead of twice', file: 'merge_tiles.cu', from: '__fadd_rn(before.x, __fmul_rn(product.scale, d[i][0]))', to: '__fmaf_rn(product.scale, d[i][0], before.x)' },
    { name: 'a 16-byte access that is not aligned', file: 'merge_tiles.cu', from: 'pieces[q].read(elements + q * piece_bytes)', to: 'pieces[q].read(elements + q * piece_bytes + 2)' },
    { name: 'values that are not finite taken for finite ones', file: 'merge_tiles.cu', from: 'all_finite && below(y[j], Format::kFinite)', to: 'all_finite' },
    { name: 'less shared memory than is used', file: 'merge_tiles.cu', from: 'kThreads, sizeof(Shared), stream', to: 'kThreads, sizeof(Shared) - 16, stream' },
    { name: 'rows swapped in the finish', file: 'merge_tiles.cu', from: '(order & 4u) >> 1;', to: '(order & 4u) >> 2;' },
    { name: 'no barrier before the lanes of a row are summed', file: 'sum_figures.cu', from: '  __syncthreads();\n', to: '' },
    { name: 'lanes summed in another order', file: 'sum_figures.cu', from: '__dadd_rn(lanes[l], lanes[l + 8])', to: '__dadd_rn(lanes[2 * l], lanes[2 * l + 1])' },
    { name: 'an answer before the GPU is done', file: 'engine.cu', from: 'device_.check(cudaStreamSynchronize(stream_), "waiting for it");', to: '' },
    { name: 'counts that are not cleared', file: 'engine.cu', from: 'cudaMemsetAsync(non_finite_ + band.begin, 0,', to: 'cudaMemsetAsync(non_finite_ + band.begin, 1,' },
    { name: 'row ends that are not cleared', file: 'engine.cu', from: 'cudaMemset2DAsync(first + row_bytes, band.pitch, 0,', to: 'cudaMemset2DAsync(first + row_bytes, band.pitch, 255,' },
    { name: 'bands that begin with a whole group', file: 'engine.cu', from: 'static_cast<uint32_t>(request.first_row % kGroupRows)', to: '0' },
  ]

  /** Reports of the sanitizers are expected here. */
  const QUIET = { ASAN_OPTIONS: 'log_path=/dev/null', UBSAN_OPTIONS: 'log_path=/dev/null' }

  test.each(MUTANTS)('$name', async (change) => {
    const helper = await buildShimHelper(change)
    const trial = async () => {
      for (const order of ['forward', 'reverse']) {
        await start({ CUDA_SHIM_ORDER: order, ...QUIET }, helper)
        await checkShapes(library, shapes(SMALL, ['F32', 'BF16']), 40, 7)
      }
    }
    await expect(trial()).rejects.toThrow()
  })

  test('the same trial passes where nothing is broken', async () => {
    await start({ CUDA_SHIM_ORDER: 'reverse' })
    await checkShapes(library, shapes(SMALL, ['F32', 'BF16']), 40, 7)
  })
})
