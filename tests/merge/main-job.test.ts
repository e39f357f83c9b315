import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { portllm, ROOT, startRegistry, type Registry } from '../setup/registry.ts'

interface Scores { models: Record<string, { patches: { name: string; task: string; accuracy: { evolved_patched: number } }[] }> }

const scores = JSON.parse(await readFile(join(ROOT, 'tests/fixtures/scores.json'), 'utf8')) as Scores
const cases = Object.entries(scores.models).flatMap(([architecture, { patches }]) => patches.map((patch) => ({ architecture, ...patch })))

let folder: string
let first: Registry
let second: Registry

/** Publishes an architecture's base, evolved version and one patch, and gets the merged model. */
async function deriveMerged(registry: Registry, architecture: string, patch: string, output: string, ...more: string[]): Promise<{ derivation: string; storage: string; storedBytes: number }> {
  const options = { configFolder: join(folder, 'config') }
  const fixture = join(ROOT, 'tests/fixtures', architecture)
  const published = await fetch(`${registry.url}/v1/models/lab/${architecture}`)
  if (published.status === 404) {
    await portllm(registry, ['publish', join(fixture, 'base'), '--name', `lab/${architecture}`, '--version', '1.0'], options)
    await portllm(registry, ['publish', join(fixture, 'evolved'), '--name', `lab/${architecture}`, '--version', '2.0', '--parent', `lab/${architecture}@1.0`, '--parent-kind', 'continued-pretraining'], options)
  }
  const name = `hospital/${architecture}-${patch}`
  await portllm(registry, ['publish', join(fixture, patch), '--name', name, '--version', '1.0.0', '--base', `lab/${architecture}@1.0`], options)
  return (await portllm(registry, ['get', `lab/${architecture}@2.0`, '--patch', `${name}@1.0.0`, '--output', output, ...more], options)) as { derivation: string; storage: string; storedBytes: number }
}

async function sha256Of(path: string): Promise<string> {
  return createHash('sha256').update(await readFile(path)).digest('hex')
}

/** SHA-256 of every file of a folder except the lockfile, which names the registry. */
async function folderDigests(path: string): Promise<Record<string, string>> {
  const names = (await readdir(path)).filter((name) => name !== 'portllm.lock').sort()
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await sha256Of(join(path, name))] as const)))
}

async function python(...args: string[]): Promise<any> {
  const { stdout } = await promisify(execFile)(await pythonPath(), args, { maxBuffer: 64 << 20 })
  return JSON.parse(stdout)
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-main-job-'))
  first = await startRegistry(join(folder, 'first'))
  second = await startRegistry(join(folder, 'second'))
  for (const registry of [first, second]) {
    for (const name of ['lab', 'hospital']) await portllm(registry, ['org', 'create', name], { configFolder: join(folder, 'config') })
  }
})

afterAll(async () => {
  await Promise.all([first?.stop(), second?.stop()])
  await rm(folder, { recursive: true, force: true })
})

describe.each(cases)('$architecture with $name', ({ architecture, name, task, accuracy }) => {
  const output = () => join(folder, `${architecture}-${name}`)
  let derivation: string
  let tensorBytes: number
  let headerBytes: number

  it('is merged, keeps its new headers alone, and shares every blob with its target', async () => {
    derivation = (await deriveMerged(first, architecture, name, output())).derivation
    const merged = (await (await fetch(`${first.url}/v1/derivations/${derivation}`)).json()) as any
    const manifest = (await (await fetch(`${first.url}/v1/derivations/${derivation}/manifest`)).json()) as any
    const plan = (await (await fetch(`${first.url}/v1/derivations/${derivation}/plan`)).json()) as any
    const target = (await (await fetch(`${first.url}/v1/models/lab/${architecture}/2.0`)).json()) as any
    const own = new Map<string, string>(target.files.map((file: any) => [file.path, file.etag]))
    const changed = new Set(merged.receipt.tensors.map((tensor: any) => tensor.name))
    expect(changed.size).toBeGreaterThan(0)

    let added = 0
    for (const file of plan.files) {
      const foreign = file.extents.filter((extent: any) => extent.blob !== own.get(file.path))
      added += foreign.reduce((sum: number, extent: any) => sum + extent.length, 0)
      const touched = manifest.tensors.some((tensor: any) => tensor.file === file.path && changed.has(tensor.name))
      expect(foreign.length > 0).toBe(touched)
      expect(file.etag === own.get(file.path)).toBe(!touched)
    }
    tensorBytes = manifest.tensors.filter((tensor: any) => changed.has(tensor.name)).reduce((sum: number, tensor: any) => sum + tensor.length, 0)
    headerBytes = merged.files.filter((file: any) => file.changed).reduce((sum: number, file: any) => sum + Math.min(...manifest.tensors.filter((tensor: any) => tensor.file === file.path).map((tensor: any) => tensor.offset)), 0)
    expect([merged.storage, merged.storedBytes]).toEqual(['computed', headerBytes])
    expect(added).toBe(tensorBytes + headerBytes)
  })

  it("loads in transformers; weights and logits are PEFT's own merge on the evolved model, to bf16 rounding", async () => {
    const fixture = join(ROOT, 'tests/fixtures', architecture)
    const report = await python(join(ROOT, 'tests/python/oracle.py'), 'compare', '--merged', output(), '--base', join(fixture, 'evolved'), '--adapter', join(fixture, name))
    expect(report.loading).toEqual({ missing_keys: [], unexpected_keys: [], mismatched_keys: [] })
    const { peft_deltas: oracle } = report
    expect(oracle.missing).toEqual([])
    expect(oracle.unexpected).toEqual([])
    expect(oracle.tensors_changed_by_patch).toBeGreaterThan(0)
    // A matrix product may add in another order, which now and then moves a sum across one rounding boundary.
    expect(oracle.max_operand_ulp).toBeLessThanOrEqual(1)
    expect(oracle.differing_elements / oracle.elements).toBeLessThan(1e-3)
    expect(oracle.logits.max_abs_difference).toBeLessThanOrEqual(2 ** -6 * oracle.logits.max_abs)
    expect(oracle.logits.same_argmax).toBe(true)
  })

  it('scores what the fixture says that the ported patch scores', async () => {
    const { accuracy: measured } = await python(join(ROOT, 'tests/fixtures/score.py'), '--model', output(), '--task', task)
    expect(Math.abs(measured - accuracy.evolved_patched)).toBeLessThanOrEqual(0.01)
  })

  it('gives identical bytes when another registry derives it from scratch, and keeps the changed tensors', async () => {
    const again = join(folder, `${architecture}-${name}-again`)
    expect(await deriveMerged(second, architecture, name, again, '--storage', 'materialised')).toMatchObject({ derivation, storage: 'materialised', storedBytes: tensorBytes + headerBytes })
    expect(await folderDigests(again)).toEqual(await folderDigests(output()))
  })
})
