import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel } from '../../bench/llama-model.ts'
import { portllm, startRegistry, type Registry } from '../setup/registry.ts'

/** Resident set of any process, at most; design.md and targets.md promise it whatever the model. */
const LIMIT_MB = 256
const POLL_MS = 50
/** Who fetch one file at the same time. */
const CLIENTS = 4

let folder: string
let registry: Registry
/** Highest resident set seen of each of our processes, in MB, by what it runs. */
const peaks = new Map<string, number>()
let timer: NodeJS.Timeout

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-memory-'))
  await writeLlamaModel(join(folder, 'model'), LLAMA_SHAPES['1.1b'])
  await writeLlamaAdapter(join(folder, 'adapter'), LLAMA_SHAPES['1.1b'], { rank: 8, alpha: 16, targets: ['q_proj', 'v_proj'] })
  registry = await startRegistry(join(folder, 'registry'))
  timer = setInterval(() => void samplePeaks(), POLL_MS)
}, 300_000)

afterAll(async () => {
  clearInterval(timer)
  await registry?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** VmHWM of every process below this one that runs our code: not even a short peak is missed while it lives. */
async function samplePeaks(): Promise<void> {
  const processes = new Map<number, { parent: number; part: string | undefined; peak: number }>()
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [command, status] = await Promise.all(['cmdline', 'status'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')))
    const part = /(api\/server|gpu-runner\/runner|cli\/main)\.ts/.exec(command!)?.[1]
    processes.set(Number(pid), { parent: Number(/PPid:\s+(\d+)/.exec(status!)?.[1]), part, peak: Number(/VmHWM:\s+(\d+)/.exec(status!)?.[1] ?? 0) / 1000 })
  }
  for (const [pid, { part, peak }] of processes) {
    let ancestor = pid
    while (ancestor !== process.pid && processes.has(ancestor)) ancestor = processes.get(ancestor)!.parent
    if (part !== undefined && ancestor === process.pid) peaks.set(part, Math.max(peaks.get(part) ?? 0, peak))
  }
}

/** Reads the bytes and forgets them. */
async function discard(url: string): Promise<void> {
  const response = await fetch(url)
  let bytes = 0
  for await (const chunk of response.body!) bytes += chunk.length
  expect(bytes).toBe(Number(response.headers.get('content-length')))
}

it('publishes, merges, fetches and analyzes a 2.2 GB model with every process under 256 MB', async () => {
  const options = { configFolder: join(folder, 'config') }
  for (const name of ['lab', 'hospital']) await portllm(registry, ['org', 'create', name], options)
  await portllm(registry, ['publish', join(folder, 'model'), '--name', 'lab/big', '--version', '1.0'], options)
  await portllm(registry, ['publish', join(folder, 'adapter'), '--name', 'hospital/patch', '--version', '1.0.0', '--base', 'lab/big@1.0'], options)
  const got = await portllm(registry, ['get', 'lab/big@1.0', '--patch', 'hospital/patch', '--output', join(folder, 'merged')], options)
  expect([got.storage, got.bytes > 2.1e9]).toEqual(['computed', true])
  const { result } = await portllm(registry, ['analyze', 'hospital/patch', '--target', 'lab/big@1.0'], options)
  const [adapter, model] = [join(folder, 'adapter'), join(folder, 'model')]
  const { result: local } = await portllm(registry, ['analyze', adapter, '--base', model, '--target', model], options)
  expect([result.whole, result.tensors.length]).toEqual([local.whole, 44])
  const fetchAtOnce = () => Promise.all(Array.from({ length: CLIENTS }, () => discard(`${registry.url}/v1/derivations/${got.derivation}/files/model-00001-of-00003.safetensors`)))
  await fetchAtOnce()
  await portllm(registry, ['storage', got.derivation, 'materialised'], options)
  await fetchAtOnce()
  await samplePeaks()
  console.log(Object.fromEntries([...peaks].map(([part, peak]) => [part, `${peak.toFixed(0)} MB`])))
  expect([...peaks.keys()].sort()).toEqual(['api/server', 'cli/main', 'gpu-runner/runner'])
  for (const [part, peak] of peaks) expect(peak, part).toBeLessThan(LIMIT_MB)
}, 600_000)
