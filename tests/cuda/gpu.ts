/**
 * `npm run test:gpu`: the CUDA path on this machine's GPUs. Bytes and figures against the scalar path, errors, and
 * throughput beside copies measured in the same run; prints a table and writes JSON. Exits with 1 where something differs,
 * and where there is no GPU.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { buildCudaHelper } from '../../gpu-runner/core/cuda/build.ts'
import { startCuda } from '../../gpu-runner/core/cuda.ts'
import { openLibrary, type Library } from '../../gpu-runner/core/library.ts'
import { openTensor } from '../../gpu-runner/core/tensor-merge.ts'
import { TARGET_DTYPES } from '../../patch/dtype.ts'
import { checkAgainstScalar, checkEveryValue, checkShapes, engines, largeTensor, mergeInBands, NARROW_DTYPES, shapes } from './identity.ts'

interface DeviceThroughput {
  readonly name: string
  readonly memcpyBytesPerSecond: number
  readonly toDeviceBytesPerSecond: number
  readonly toHostBytesPerSecond: number
  readonly duplexBytesPerSecond: number
  /** From memory to memory on the GPU. */
  readonly resident: readonly { rank: number; figures: boolean; bytesPerSecond: number; multiplyAddsPerSecond: number }[]
  /** In and out over the bus, through lanes whose slots are full already. */
  readonly streaming: readonly { rank: number; bytesPerSecond: number }[]
}

const { values: options } = parseArgs({
  options: {
    // Sizes with which the shim is through in seconds, for the test of this script.
    quick: { type: 'boolean', default: false },
    output: { type: 'string', default: resolve(import.meta.dirname, '../../bench/results/cuda-throughput.json') },
  },
})
const SIZES = options.quick
  ? { shapes: 6, rows: 130, cols: 140, rank: 20, large: [300, 130], streamed: [256, 64], throughput: ['64', '64', '1'] }
  : { shapes: 200, rows: 700, cols: 1500, rank: 300, large: [8192, 8192], streamed: [16_384, 8192], throughput: ['16384', '8192', '20'] }

/** All that is left for factors on each GPU while it runs out of memory. */
const SPARE_MEBIBYTES = options.quick ? 4 : 128

const library = await openLibrary()

async function start(variables: Record<string, string> = {}): Promise<string> {
  const before = Object.fromEntries(Object.keys(variables).map((name) => [name, process.env[name]]))
  Object.assign(process.env, variables)
  try {
    return await library.startCuda(await buildCudaHelper())
  } finally {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  }
}

const CHECKS: readonly (readonly [string, () => Promise<string | void>])[] = [
  ['random shapes, tiles', () => start().then(() => checkShapes(library, shapes(SIZES), SIZES.shapes))],
  ['random shapes, plain', () => start({ PORTLLM_CUDA_KERNEL: 'plain' }).then(() => checkShapes(library, shapes(SIZES), SIZES.shapes))],
  ['every narrow value of W', async () => {
    await start()
    for (const dtype of NARROW_DTYPES) await checkEveryValue(library, dtype)
  }],
  ['large tensors of every dtype, aligned and not', async () => {
    await start()
    const [rows, cols] = SIZES.large as [number, number]
    for (const dtype of TARGET_DTYPES) {
      for (const [extra, ranks] of [[0, [16]], [3, [64, 1]]] as const) {
        const { spec, w } = largeTensor(dtype, rows >> (dtype === 'F64' ? 2 : 1), cols + extra, ranks)
        await checkAgainstScalar(library, spec, w, [Math.floor(spec.rows / 3) + 1])
      }
    }
  }],
  ['several tensors at once', async () => {
    await start()
    const [rows, cols] = SIZES.large as [number, number]
    await Promise.all([8, 9, 10, 11].map(async (rank) => {
      const { spec, w } = largeTensor('BF16', (rows >> 2) + rank, cols, [rank])
      await checkAgainstScalar(library, spec, w)
    }))
  }],
  ['several GPUs share a tensor', async () => {
    const found = await start()
    if (found.startsWith('1 GPU')) return `not run: ${found}`
    const [rows, cols] = SIZES.large as [number, number]
    const { spec, w } = largeTensor('BF16', rows, cols, [16])
    await checkAgainstScalar(library, spec, w)
    return found
  }],
  ['out of memory is an error, and the next tensor merges', async () => {
    await start({ PORTLLM_CUDA_SPARE_MEBIBYTES: String(SPARE_MEBIBYTES) })
    const { spec, w } = largeTensor('BF16', 64, 64, [SPARE_MEBIBYTES * 4096])
    const error = await checkAgainstScalar(library, spec, w).then(() => null, (reason: unknown) => reason)
    if (!(error instanceof Error) || !/has no room for the factors/.test(error.message)) throw new Error(`expected to run out of memory, but: ${String(error)}`)
    const small = largeTensor('BF16', 64, 64, [4])
    await checkAgainstScalar(library, small.spec, small.w)
    return error.message
  }],
  ['a helper that is killed is an error, and the next start works', async () => {
    await start()
    const { spec, w } = largeTensor('BF16', SIZES.large[0]!, SIZES.large[1]!, [16])
    const { cuda } = engines(library)
    const merging = (async () => { for (;;) await mergeInBands(cuda, spec, w, []) })().catch((reason: unknown) => reason)
    await new Promise((resolve) => setTimeout(resolve, 100))
    await killHelper()
    const error = await merging
    if (!(error instanceof Error) || !/has ended by signal 9/.test(error.message)) throw new Error(`expected the helper's end, but: ${String(error)}`)
    await start()
    await checkAgainstScalar(library, spec, w)
    return error.message
  }],
]


async function killHelper(): Promise<void> {
  const tasks = await readdir('/proc/self/task')
  const children = (await Promise.all(tasks.map((task) => readFile(`/proc/self/task/${task}/children`, 'utf8').catch(() => '')))).join(' ').trim().split(/\s+/)
  for (const pid of children) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.split('\0')[1] === 'serve') process.kill(Number(pid), 'SIGKILL')
  }
}

async function measureDevices(): Promise<DeviceThroughput[]> {
  const child = spawn(await buildCudaHelper(), ['throughput', ...SIZES.throughput], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`measuring failed with exit code ${code}`)
  return JSON.parse(output).devices
}

/** Bytes in and out per second from this process's memory through the core and all GPUs. */
async function measureCore(library: Library, rank: number): Promise<number> {
  const [rows, cols] = SIZES.streamed as [number, number]
  const { spec, w } = largeTensor('BF16', rows, cols, [rank])
  const merge = openTensor(engines(library).cuda, spec)
  const seconds: number[] = []
  for (let i = 0; i < 6; i++) {
    const started = performance.now()
    await merge.mergeRows(0, rows, w, w)
    if (i > 0) seconds.push((performance.now() - started) / 1000)
  }
  merge.finish()
  return (2 * w.length) / seconds.sort((a, b) => a - b)[2]!
}

function table(devices: readonly DeviceThroughput[], core: readonly { rank: number; bytesPerSecond: number }[]): string {
  const gigabytes = (rate: number) => (rate / 1e9).toFixed(1)
  const percent = (share: number) => `${(share * 100).toFixed(0)} %`
  return devices.flatMap((device) => [
    `\n${device.name}: memcpy ${gigabytes(device.memcpyBytesPerSecond)} GB/s read and written; bus ${gigabytes(device.toDeviceBytesPerSecond)} in, ${gigabytes(device.toHostBytesPerSecond)} out, ${gigabytes(device.duplexBytesPerSecond)} both`,
    '\n| resident bf16 | GB/s | of memcpy (target: 85 %) | T multiply-adds/s |\n|---|---|---|---|',
    ...device.resident.map(({ rank, figures, bytesPerSecond, multiplyAddsPerSecond }) => `| r=${rank}${figures ? ', with figures' : ''} | ${gigabytes(bytesPerSecond)} | ${percent(bytesPerSecond / device.memcpyBytesPerSecond)} | ${(multiplyAddsPerSecond / 1e12).toFixed(2)} |`),
    '\n| streaming bf16 | GB/s in and out | of the bus both ways (target: 90 %) |\n|---|---|---|',
    ...device.streaming.map(({ rank, bytesPerSecond }) => `| r=${rank} | ${gigabytes(bytesPerSecond)} | ${percent(bytesPerSecond / device.duplexBytesPerSecond)} |`),
  ]).concat(
    '\n| through the core, all GPUs | GB/s in and out |\n|---|---|',
    core.map(({ rank, bytesPerSecond }) => `| r=${rank} | ${gigabytes(bytesPerSecond)} |`),
  ).join('\n')
}

async function main(): Promise<number> {
  let gpus: string
  try {
    gpus = await startCuda(library)
  } catch (error) {
    console.error(`test:gpu needs an NVIDIA GPU, a driver and a helper for it: ${error instanceof Error ? error.message : String(error)}`)
    return 1
  }
  console.log(gpus)
  const results: { name: string; passed: boolean; note: string; seconds: number }[] = []
  for (const [name, check] of CHECKS) {
    const started = performance.now()
    const [passed, note] = await check().then((text) => [true, text ?? ''] as const, (error: unknown) => [false, error instanceof Error ? `${error.message}${error.cause instanceof Error ? `\n${error.cause.message}` : ''}` : String(error)] as const)
    results.push({ name, passed, note, seconds: (performance.now() - started) / 1000 })
    console.log(`${passed ? 'ok    ' : 'FAILED'} ${name} (${results.at(-1)!.seconds.toFixed(1)} s)${note && `: ${note}`}`)
  }
  const devices = await measureDevices()
  await start()
  const core: { rank: number; bytesPerSecond: number }[] = []
  for (const rank of [8, 16, 64]) core.push({ rank, bytesPerSecond: await measureCore(library, rank) })
  console.log(table(devices, core))
  await writeFile(options.output, `${JSON.stringify({ command: 'npm run test:gpu', gpus, checks: results, devices, core }, null, 2)}\n`)
  const failed = results.filter(({ passed }) => !passed).length
  console.log(`\n${results.length - failed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

process.exitCode = await main()
