import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import pLimit from 'p-limit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadCore, type Core, type MergeFigures } from '../../gpu-runner/core/core.ts'
import { PATHS, type CorePath } from '../../gpu-runner/core/library.ts'
import { build, cases, onlyProducts, type Case, type RandomMerge } from '../../gpu-runner/core/random-merge.ts'
import { aarch64 } from '../setup/aarch64.ts'
import { recorded, replayed } from './recording.ts'

const CORE = join(import.meta.dirname, '../../gpu-runner/core')
/** As in build.ts. */
const FLAGS = ['-std=c++17', '-O2', '-DNDEBUG', '-ffp-contract=off', '-fno-math-errno', '-pthread', '-w']

const tools = aarch64()
let folder: string
let program: string
let core: Core

beforeAll(async () => {
  core = await loadCore()
  folder = await mkdtemp(join(tmpdir(), 'portllm-neon-'))
  program = join(folder, 'replay')
  const sources = (await readdir(CORE)).filter((name) => name.endsWith('.cpp') && !/^(analysis|roofline|tile_avx)/.test(name)).map((name) => join(CORE, name))
  sources.push(join(import.meta.dirname, 'replay.cpp'))
  const limit = pLimit(availableParallelism())
  const objects = await Promise.all(sources.map((source, i) => limit(async () => {
    const object = join(folder, `${i}.o`)
    await run(tools.compiler, [...FLAGS, `-I${CORE}`, '-c', source, '-o', object])
    return object
  })))
  await run(tools.compiler, ['-static', '-pthread', ...objects, '-o', program])
}, 600_000)
afterAll(() => rm(folder, { recursive: true, force: true }))

async function run(command: string, args: readonly string[]): Promise<void> {
  const { execFile } = await import('node:child_process')
  await new Promise<void>((resolve, reject) => execFile(command, args, (error, _stdout, stderr) => (error ? reject(new Error(`${command} ${args.at(-1)}: ${stderr}`)) : resolve())))
}

function onArm(path: CorePath, threads: number, merges: readonly RandomMerge[]) {
  const [command, ...before] = [...tools.run, program]
  const { status, stdout, stderr } = spawnSync(command!, [...before, String(PATHS[path]), String(threads)], { input: recorded(merges), maxBuffer: 2 ** 30 })
  if (status !== 0) throw new Error(`replay ended with ${status}: ${stderr}`)
  return replayed(stdout)
}

async function here({ spec, reference, operands }: RandomMerge): Promise<{ out: Buffer; figures: MergeFigures }> {
  const merge = core.tensor(spec)
  if (merge.measures) await merge.measureRows(0, spec.rows, reference.w)
  const out = Buffer.alloc(reference.w.length)
  await merge.mergeRows(0, spec.rows, reference.w, out, operands)
  return { out, figures: merge.finish() }
}

async function expectSame(path: CorePath, threads: number, specs: readonly Case[]) {
  const merges = specs.map(build)
  const actual = onArm(path, threads, merges)
  expect(actual).toHaveLength(merges.length)
  for (const [i, merge] of merges.entries()) {
    const expected = await here(merge)
    expect(actual[i]!.out.equals(expected.out), JSON.stringify(specs[i])).toBe(true)
    expect(actual[i]!.figures, JSON.stringify(specs[i])).toEqual(expected.figures)
  }
}

describe.each<CorePath>(['scalar', 'neon'])('the path %s on ARM gives the bits and figures of this machine', (path) => {
  test.each([['products', cases(onlyProducts)], ['every kind of contribution', cases()]])('%s', async (_name, arbitrary) => {
    await expectSame(path, 1, fc.sample(arbitrary, { numRuns: 300, seed: 5 }))
  }, 120_000)

  test('high ranks, several threads and many tiles', async () => {
    const case_ = { kinds: ['product', 'product'], ranks: [70, 33], factorDtype: 'F32', operandDtype: 'F32', weight: 1 } as const
    await expectSame(path, 3, (['F32', 'F16', 'BF16'] as const).flatMap((dtype, i) => (['ordinary', 'special'] as const).map((values) => ({ ...case_, dtype, values, rows: 203, cols: 450, seed: 11 + i }))))
  }, 120_000)
})

test('every bfloat16 and float16 value of W, under contributions that make ties, subnormals and overflow', async () => {
  const contributions = [0, 2 ** -8, -3 * 2 ** -8, 2 ** -11, 2 ** -25, -3 * 2 ** -25, 2 ** -134, 2 ** 119, 16, -0.3]
  const all = Uint8Array.from({ length: 2 ** 17 }, (_, i) => (i % 2 ? i >> 9 : i >> 1))
  const merges = (['BF16', 'F16'] as const).flatMap((dtype) => contributions.map((t): RandomMerge => {
    const factor = (value: number, strides: readonly [number, number]) => ({ bytes: new Uint8Array(new Float32Array(256).fill(value).buffer), dtype: 'F32' as const, offset: 0, strides })
    const product = { kind: 'product' as const, left: factor(1, [1, 1]), right: factor(t, [256, 1]), rank: 1, scale: 1 }
    const shape = { dtype, rows: 256, cols: 256 }
    return { spec: { ...shape, contributions: [product] }, reference: { ...shape, w: all, contributions: [product] }, operands: [] }
  }))
  const actual = onArm('neon', 1, merges)
  for (const [i, merge] of merges.entries()) expect(actual[i]).toEqual(await here(merge))
}, 60_000)

test('the program is one for ARM', () => {
  expect(execFileSync('od', ['-An', '-tu2', '-j18', '-N2', program], { encoding: 'utf8' }).trim()).toBe('183')
})
