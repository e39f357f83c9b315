import { spawn, type ChildProcess } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { sha256Hex, startObjectServer } from '../../gpu-runner/object-server.ts'
import type { IngestSpec, MergeSpec } from '../../gpu-runner/protocol.ts'
import { writeHeader } from '../../patch/safetensors.ts'
import { startJobServer } from './job-server.ts'

const registry = await startJobServer()
const store = await startObjectServer()
const started: ChildProcess[] = []
afterAll(async () => {
  for (const child of started) child.kill('SIGKILL')
  await Promise.all([registry.close(), store.close()])
})
beforeEach(() => {
  for (const list of [registry.jobs, registry.claims, registry.reports, registry.refusals]) list.length = 0
  registry.cancel = false
})

const script = fileURLToPath(new URL('../../gpu-runner/runner.ts', import.meta.url))

function startRunner(args: string[], environment: Record<string, string> = {}) {
  const child = spawn(process.execPath, [script, ...args], {
    env: { ...process.env, PORTLLM_REGISTRY: registry.url, PORTLLM_RUNNER_TOKEN: 'runner-token', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  started.push(child)
  const runner = { child, log: '', code: new Promise<number | null>((resolve) => child.on('exit', (code) => resolve(code))) }
  child.stderr.on('data', (chunk: Buffer) => (runner.log += chunk.toString()))
  return runner
}

async function until(what: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !what(); i++) await new Promise((resolve) => setTimeout(resolve, 50))
  expect(what()).toBe(true)
}

const config = '{"model_type":"llama","architectures":["LlamaForCausalLM"]}'

function ingestSpec(weights: Buffer, config_ = config): IngestSpec {
  const files = { 'config.json': Buffer.from(config_), 'model.safetensors': weights }
  return {
    kind: 'ingest',
    subject: 'model',
    files: Object.entries(files).map(([path, bytes]) => {
      const sha256 = sha256Hex(bytes)
      store.objects.set(`/${sha256}`, bytes)
      return { path, size: bytes.byteLength, sha256, get: store.get(`/${sha256}`) }
    }),
  }
}

/** Bf16 tensors and a rank-16 product onto each. */
function mergeSpec(rows: number, cols: number, fill: Buffer, count = 1): MergeSpec {
  const rank = 16
  const length = rows * cols * 2
  store.objects.set('/w', Buffer.alloc(length, fill))
  const factor = (name: string, count: number) => {
    const bytes = Buffer.from(new Uint8Array(Float32Array.from({ length: count }, (_, i) => Math.sin(i) / 16).buffer))
    store.objects.set(name, bytes)
    return { get: store.get(name), length: bytes.byteLength, dtype: 'F32' as const }
  }
  return {
    kind: 'merge', rules: ['lora-f32/1'], derivation: 'd',
    tensors: Array.from({ length: count }, (_, i) => ({
      name: `w${i}`, dtype: 'BF16' as const, rows, cols, length, source: store.get('/w', { offset: 0, length }),
      factors: [factor('/l', rows * rank), factor('/r', cols * rank)],
      blocks: [{ first: 0, count: rows, contributions: [{ kind: 'product', rank, scale: 2, left: { factor: 0, offset: 0, strides: [rank, 1] }, right: { factor: 1, offset: 0, strides: [cols, 1] } }] }],
      put: store.put(i === 0 ? '/out' : `/out${i}`), output: `attempts/${i}`,
    })),
  }
}

const small = Buffer.concat([writeHeader([{ name: 'w', dtype: 'F32', shape: [2] }]), Buffer.alloc(8)])

test('claims, works, reports with the attempt\'s token, and exits when there is no more work', async () => {
  registry.jobs.push({ id: 'one', kind: 'ingest', spec: ingestSpec(small) }, { id: 'two', kind: 'merge', spec: mergeSpec(64, 64, Buffer.from([1, 60])) }, { id: 'three', kind: 'ingest', spec: ingestSpec(small, '{') })
  registry.refusals.push({ verb: 'claim', status: 503, code: 'unavailable' }, { verb: 'complete', status: 503, code: 'unavailable' })
  const runner = startRunner(['--idle-seconds', '1', '--name', 'tested'])
  expect(await runner.code).toBe(0)
  expect(registry.claims[0]).toMatchObject({ kinds: ['ingest', 'merge', 'analyze', 'evaluate', 'finetune', 'evolve'], runner: { name: 'tested' } })
  expect(registry.reports.map(({ job, verb, token }) => `${job} ${verb} ${token}`)).toEqual(['one', 'two', 'three'].map((id) => `${id} complete Bearer attempt-of-${id}`))
  expect(registry.reports[0]!.body.result).toMatchObject({ manifest: { format: 'portllm.model/1', tensors: [{ name: 'w' }] }, readme: null })
  expect(registry.reports[1]!.body.result).toMatchObject({ engine: { name: 'portllm-core' }, tensors: [{ digest: `sha256:${sha256Hex(store.objects.get('/out')!)}` }] })
  expect(registry.reports[2]!.body.result).toMatchObject({ rejection: [{ code: 'bad-config' }] })
  expect(runner.log).not.toMatch(/runner-token|attempt-of|model\.safetensors/)
})

test('a job that fails is reported with its code; one that is not understood too', async () => {
  const spec = mergeSpec(8, 8, Buffer.from([0x80, 0x7f]))
  registry.jobs.push({ id: 'inf', kind: 'merge', spec }, { id: 'odd', kind: 'merge', spec: { ...spec, rules: ['future/9'] } })
  expect(await startRunner(['--idle-seconds', '0']).code).toBe(0)
  expect(registry.reports.map(({ verb, body }) => ({ verb, code: body.code, retryable: body.retryable }))).toEqual([
    { verb: 'fail', code: 'non_finite_result', retryable: false }, { verb: 'fail', code: 'invalid_spec', retryable: true },
  ])
})

/** A job whose input never arrives. */
function endless() {
  store.stalled.add('/slow')
  return { id: 'slow', kind: 'ingest', leaseSeconds: 0.6, spec: { kind: 'ingest', subject: 'model', files: [{ path: 'config.json', size: 10, sha256: '0'.repeat(64), get: store.get('/slow') }] } }
}

test('SIGTERM gives the job back and ends the process', async () => {
  registry.jobs.push(endless())
  const runner = startRunner([])
  await until(() => registry.reports.some(({ verb }) => verb === 'heartbeat'))
  runner.child.kill('SIGTERM')
  expect(await runner.code).toBe(0)
  expect(registry.reports.at(-1)).toMatchObject({ job: 'slow', verb: 'fail', body: { code: 'runner_stopped', retryable: true } })
})

test('a lost attempt ends without a report, a cancelled one with one', async () => {
  registry.jobs.push(endless())
  registry.refusals.push({ verb: 'heartbeat', status: 409, code: 'stale_attempt' })
  const lost = startRunner(['--once'])
  expect(await lost.code).toBe(0)
  expect(registry.reports).toEqual([])
  expect(lost.log).toContain('lost')
  registry.jobs.push(endless())
  registry.cancel = true
  expect(await startRunner(['--once']).code).toBe(0)
  expect(registry.reports.at(-1)).toMatchObject({ verb: 'fail', body: { code: 'cancelled', retryable: false } })
})

test('ends with its parent', async () => {
  const parent = spawn(process.execPath, ['-e', `
    const child = require('node:child_process').spawn(process.execPath, [${JSON.stringify(script)}, '--with-parent'], { stdio: 'ignore', detached: true })
    console.log(child.pid)
    setInterval(() => {}, 1000)
  `], { env: { ...process.env, PORTLLM_REGISTRY: registry.url, PORTLLM_RUNNER_TOKEN: 'runner-token' }, stdio: ['ignore', 'pipe', 'inherit'] })
  started.push(parent)
  const pid = Number(await new Promise<string>((resolve) => parent.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString()))))
  await until(() => registry.claims.length > 0)
  parent.kill('SIGKILL')
  await until(() => !isAlive(pid))
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

test('wrong usage and a refused token end with a reason', async () => {
  for (const [args, environment, code, words] of [
    [['--kinds', 'bake'], {}, 2, 'bake'], [['--idle-seconds', 'x'], {}, 2, 'seconds'], [['--nonsense'], {}, 2, 'nonsense'],
    [[], { PORTLLM_RUNNER_TOKEN: '' }, 2, 'PORTLLM_RUNNER_TOKEN'], [[], { PORTLLM_REGISTRY: 'here' }, 2, 'PORTLLM_REGISTRY'],
    [[], { PORTLLM_RUNNER_TOKEN: 'wrong' }, 1, 'unauthenticated'],
  ] as const) {
    const runner = startRunner([...args], environment)
    expect(await runner.code, words).toBe(code)
    expect(runner.log).toContain(words)
  }
})

test('memory stays bounded while 300 MB are verified and 300 MB merged', async () => {
  const rows = 37_500
  const cols = 4000
  const fill = Buffer.from([0x12, 0x3c, 0x77, 0xbb])
  const weights = Buffer.concat([writeHeader([{ name: 'w', dtype: 'BF16', shape: [rows, cols] }]), Buffer.alloc(rows * cols * 2, fill)])
  registry.jobs.push({ id: 'ingest', kind: 'ingest', spec: ingestSpec(weights) }, { id: 'merge', kind: 'merge', spec: mergeSpec(rows / 6, cols, fill, 6) })
  const runner = startRunner(['--name', 'large'])
  await until(() => registry.reports.filter(({ verb }) => verb === 'complete').length === 2)
  const peak = Number(/VmHWM:\s+(\d+) kB/.exec(await readFile(`/proc/${runner.child.pid}/status`, 'utf8'))![1]) / 1024
  const seconds = [...runner.log.matchAll(/"seconds":([\d.]+)/g)].map((match) => Number(match[1]))
  console.log(`peak RSS ${peak.toFixed(0)} MiB; 300 MB verified in ${seconds[0]?.toFixed(2)} s, merged (r=16, six tensors) in ${seconds[1]?.toFixed(2)} s`)
  runner.child.kill('SIGTERM')
  expect(await runner.code).toBe(0)
  expect(peak).toBeLessThan(256)
  expect(store.objects.get('/out5')!.byteLength).toBe((rows / 6) * cols * 2)
})
