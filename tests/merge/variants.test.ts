import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { DTYPE_BITS, type Dtype } from '../../patch/dtype.ts'
import { headerLength, parseHeader } from '../../patch/safetensors.ts'
import { pythonPath } from '../setup/python.ts'
import { ROOT, runCommand } from '../setup/registry.ts'

interface Variant { name: string; mergeable: boolean; feature: string; base: string; adapter: string }
interface StoredTensor { dtype: Dtype; shape: readonly number[]; bytes: Buffer }

/**
 * PEFT rounds an embedding's delta to the base's dtype before it adds (lora/layer.py, Embedding.merge), which rounds
 * twice; the rule rounds once. What both keep is the value to one unit in the last place.
 */
const ROUNDED_TWICE_BY_PEFT = /embed/

let folder: string
let variants: Variant[]

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-variants-'))
  const python = await pythonPath()
  const oracle = (...args: string[]) => promisify(execFile)(python, [join(ROOT, 'tests/python/oracle.py'), ...args], { maxBuffer: 64 << 20 })
  await oracle('make-variants', '--out', folder)
  await oracle('variant-oracle', '--variants', folder)
  variants = JSON.parse(await readFile(join(folder, 'variants.json'), 'utf8')).variants
}, 300_000)

afterAll(() => rm(folder, { recursive: true, force: true }))

function merge(variant: Variant) {
  return runCommand(null, ['merge', join(folder, variant.base), join(folder, variant.adapter), '--output', join(folder, variant.name, 'ours'), '--json'], { configFolder: join(folder, 'config') })
}

async function readTensors(path: string): Promise<Map<string, StoredTensor>> {
  const tensors = new Map<string, StoredTensor>()
  for (const name of (await readdir(path)).filter((file) => file.endsWith('.safetensors'))) {
    const file = await readFile(join(path, name))
    const header = parseHeader(file.subarray(0, headerLength(file.subarray(0, 8), file.length)), file.length)
    for (const { name: tensor, dtype, shape, begin, end } of header.tensors) {
      tensors.set(tensor, { dtype, shape, bytes: file.subarray(header.dataOffset + begin, header.dataOffset + end) })
    }
  }
  return tensors
}

function differingElements(a: StoredTensor, b: StoredTensor): number {
  const size = DTYPE_BITS[a.dtype] / 8
  let count = 0
  for (let at = 0; at < a.bytes.length; at += size) if (a.bytes.compare(b.bytes, at, at + size, at, at + size) !== 0) count++
  return count
}

it("merges every plain variety to PEFT's own bits", async () => {
  const mergeable = variants.filter((variant) => variant.mergeable)
  expect(mergeable.length).toBeGreaterThan(15)
  for (const variant of mergeable) {
    const { code, stderr, stdout } = await merge(variant)
    expect(code, `${variant.name}: ${stderr}${stdout}`).toBe(0)
    const [ours, theirs, before] = await Promise.all([join(folder, variant.name, 'ours'), join(folder, variant.name, 'merged'), join(folder, variant.base)].map(readTensors))
    let changed = 0
    for (const [name, tensor] of theirs!) {
      const mine = ours!.get(name)
      expect(mine && { dtype: mine.dtype, shape: mine.shape }, `${variant.name}: ${name}`).toEqual({ dtype: tensor.dtype, shape: tensor.shape })
      if (before!.has(name) && differingElements(tensor, before!.get(name)!) > 0) changed++
      const differing = differingElements(mine!, tensor)
      const elements = tensor.bytes.length / (DTYPE_BITS[tensor.dtype] / 8)
      const allowed = ROUNDED_TWICE_BY_PEFT.test(name) ? 0.4 * elements : 1e-3 * elements
      expect(differing, `${variant.name}: ${name}`).toBeLessThanOrEqual(allowed)
    }
    expect(changed, variant.name).toBeGreaterThan(0)
  }
}, 300_000)

it('refuses every other variety by name, and writes nothing', async () => {
  const refused = variants.filter((variant) => !variant.mergeable)
  expect(refused.length).toBeGreaterThan(20)
  for (const variant of refused) {
    const { code, stderr, stdout } = await merge(variant)
    expect(code, `${variant.name}: ${stderr}${stdout}`).not.toBe(0)
    expect(code, `${variant.name}: ${stderr}${stdout}`).toBeLessThan(6)
    expect(await readdir(join(folder, variant.name, 'ours')).catch(() => 'nothing'), variant.name).toBe('nothing')
    const said = `${stderr}${stdout}`
    expect(said, variant.name).not.toMatch(/TypeError|at .*\.ts:\d+/)
    expect(said.length, variant.name).toBeGreaterThan(40)
  }
}, 300_000)
