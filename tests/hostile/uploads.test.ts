import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, expect, test } from 'vitest'
import { sha256Hex, startObjectServer } from '../../gpu-runner/object-server.ts'
import type { Finding, IngestResult, IngestSpec } from '../../gpu-runner/protocol.ts'
import { checkCompatibility } from '../../patch/compatibility.ts'
import { AdapterError } from '../../patch/adapter.ts'
import type { ModelManifest, PatchManifest } from '../../patch/manifest.ts'
import { startJobServer } from '../runner/job-server.ts'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { ROOT } from '../setup/registry.ts'
import { malformedUploads, SOUND_UPLOADS, type Upload } from './malformed-uploads.ts'

/** Above what the process had after two sound uploads, when all its code was there. */
const MOST_MEMORY = 64e6
/** Of a processor, for one upload. */
const MOST_SECONDS = 10

/** Refusals of what the reference reads: what no real file has, and what JSON libraries read in different ways. */
const STRICTER = /^(safetensors-(duplicate-key|bad-structure|bad-name|bad-shape|shape-overflow|bad-metadata)|non-finite)$/

const folder = await mkdtemp(join(tmpdir(), 'portllm-uploads-'))
afterAll(() => rm(folder, { recursive: true }))

interface Outcome {
  readonly upload: Upload
  readonly result: IngestResult | { readonly failure: string }
  readonly seconds: number
}

async function peakMemory(pid: number): Promise<number> {
  return 1024 * Number(/VmHWM:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))![1])
}

/** Seconds of a processor that the process has taken. */
async function processorTime(pid: number): Promise<number> {
  const [user, system] = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]!.split(' ').slice(11, 13) as [string, string]
  return (Number(user) + Number(system)) / 100
}

/** Every upload as an ingest job, one after the other, by one runner in a process of its own. */
async function ingestAll(uploads: AsyncGenerator<Upload>, onOutcome: (outcome: Outcome) => void): Promise<{ idle: number; peak: number; log: string }> {
  const store = await startObjectServer()
  let [idle, peak, count, begun] = [0, 0, 0, 0]
  let current: Upload | undefined
  const specOf = ({ subject, files, declared }: Upload): IngestSpec => ({
    kind: 'ingest', subject,
    files: Object.entries(files).map(([path, bytes], i) => {
      store.objects.set(`/${count}/${i}`, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
      return { path, size: bytes.byteLength, sha256: sha256Hex(bytes), get: store.get(`/${count}/${i}`), ...declared?.[path] }
    }),
  })
  const settle = async () => {
    if (current === undefined) return
    const report = registry.reports.findLast(({ verb }) => verb !== 'heartbeat')!
    onOutcome({ upload: current, seconds: (await processorTime(runner.pid!)) - begun, result: report.verb === 'complete' ? (report.body.result as IngestResult) : { failure: JSON.stringify(report.body) } })
    registry.reports.length = store.requests.length = 0
    store.objects.clear()
  }
  const next = async () => {
    await settle()
    if (count === SOUND_UPLOADS) idle = await peakMemory(runner.pid!)
    current = (await uploads.next()).value as Upload | undefined
    if (current === undefined) {
      peak = await peakMemory(runner.pid!)
      runner.kill('SIGTERM')
      return undefined
    }
    count++
    const spec = specOf(current)
    begun = await processorTime(runner.pid!)
    return { id: String(count), kind: 'ingest', spec, leaseSeconds: 600 }
  }
  let failure: unknown
  const registry = await startJobServer(() => next().catch((error: unknown) => {
    failure ??= error
    runner.kill('SIGKILL')
    return undefined
  }))
  const runner = spawn(process.execPath, [`${ROOT}gpu-runner/runner.ts`], { env: { ...process.env, PORTLLM_REGISTRY: registry.url, PORTLLM_RUNNER_TOKEN: 'runner-token' }, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  runner.stderr.on('data', (chunk) => (log = `${log}${chunk}`.slice(-4000)))
  const code = await new Promise<number | null>((resolve) => runner.on('exit', resolve))
  await Promise.all([registry.close(), store.close()])
  if (failure !== undefined) throw failure
  if (current !== undefined) throw new Error(`the runner ended with ${code} at "${current.name}": ${log}`)
  return { idle, peak, log }
}

/** Why a patch is not taken by the registry once it is read, as api/services/uploads/check-patch-base.ts asks. */
function misfits(patch: PatchManifest, base: ModelManifest): Finding[] {
  const version = { digest: 'sha256:0', manifest: base }
  try {
    const { resolution } = checkCompatibility({ patch, base: version, target: version, lineage: { relation: 'same', steps: [] }, options: { tied: 'untie' } })
    return resolution.reasons.filter(({ severity }) => severity === 'refusal')
  } catch (error) {
    if (error instanceof AdapterError) return [{ code: error.code, message: error.message }]
    throw error
  }
}

test('every malformed upload is refused with a reason; none ends the runner, holds it up, or takes 64 MB', async () => {
  const problems: string[] = []
  const asked = new Map<string, { upload: Upload; accepted: ModelManifest | null; codes: string[] }>()
  const slowest = { name: '', seconds: 0 }
  let base: ModelManifest | undefined
  let malformed = 0
  const outcome = ({ upload: { name, files, expected }, upload, result, seconds }: Outcome) => {
    if (seconds > slowest.seconds) Object.assign(slowest, { name, seconds })
    if (seconds > MOST_SECONDS) problems.push(`${name}: took ${seconds.toFixed(1)} s of a processor`)
    if ('failure' in result) return void problems.push(`${name}: ${result.failure}`)
    if ('manifest' in result && result.manifest.format === 'portllm.model/1') base ??= result.manifest
    const findings = 'rejection' in result ? result.rejection : result.manifest.format === 'portllm.patch/1' ? misfits(result.manifest, base!) : []
    for (const { code, message } of findings) if (!/^[a-z0-9-]+$/.test(code) || message.length < 20) problems.push(`${name}: no reason is ${code}: ${message}`)
    const codes = findings.map(({ code }) => code)
    if (findings.length > 0) malformed++
    if (expected !== null && !codes.some((code) => expected.test(code))) problems.push(`${name}: ${expected} expected, ${codes.join() || 'accepted'}`)
    else if (name.startsWith('the sound ') && findings.length > 0) problems.push(`${name}: ${JSON.stringify(findings)}`)
    else if (expected === null && !name.startsWith('the sound ')) asked.set(String(asked.size), { upload, accepted: 'manifest' in result ? (result.manifest as ModelManifest) : null, codes })
  }
  const { idle, peak } = await ingestAll(malformedUploads(), outcome)
  await Promise.all([...asked].map(([file, { upload: { files } }]) => writeFile(join(folder, file), files['model.safetensors']!)))
  const { stdout } = await promisify(execFile)(await pythonPath(), [join(ROOT, 'tests/python/read_safetensors.py'), folder], { maxBuffer: 2 ** 28 })
  const oracle = JSON.parse(stdout) as Record<string, [string, string, number[]][] | null>
  let sound = 0
  for (const [file, { upload: { name }, accepted, codes }] of asked) {
    const found = oracle[file]!
    if (accepted === null) {
      if (found !== null && !codes.some((code) => STRICTER.test(code))) problems.push(`${name}: ${codes} refused, and the reference reads it`)
      continue
    }
    sound++
    const read = accepted.tensors.map(({ name, dtype, shape }) => [name, dtype, shape] as const).sort(([a], [b]) => (a < b ? -1 : 1))
    if (found === null || JSON.stringify([...found].sort(([a], [b]) => (a < b ? -1 : 1))) !== JSON.stringify(read)) problems.push(`${name}: accepted, the reference says ${JSON.stringify(found)}`)
  }
  console.log(`${malformed} refused, ${sound} sound by the reference; ${(peak / 1e6).toFixed(0)} MB, idle ${(idle / 1e6).toFixed(0)} MB; longest ${slowest.seconds.toFixed(1)} s of a processor (${slowest.name})`)
  expect(problems).toEqual([])
  expect(malformed).toBeGreaterThan(1000)
  expect(sound).toBeGreaterThan(100)
  expect(peak - idle).toBeLessThan(MOST_MEMORY)
}, 300_000)
