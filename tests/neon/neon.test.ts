import { execFileSync, spawnSync } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { openAnalysisLibrary, SUMS, type AnalysisLibrary } from '../../gpu-runner/core/analysis-library.ts'
import { loadCore, type Core, type InitialFactorsSpec, type MergeFigures } from '../../gpu-runner/core/core.ts'
import { CORE_DTYPES, PATHS, type CorePath } from '../../gpu-runner/core/library.ts'
import { compileObjects, makeFile, removeOld } from '../../gpu-runner/core/objects.ts'
import { randomAnalysis, stored, type AnalysisCase, type RandomAnalysis } from '../../gpu-runner/core/random-analysis.ts'
import { build, cases, onlyProducts, random, type Case, type RandomMerge } from '../../gpu-runner/core/random-merge.ts'
import { aarch64 } from '../setup/aarch64.ts'
import { recordedAnalyses, recordedBases, recordedMerges, replayedMerges, replayedPairs } from './recording.ts'

const CORE = join(import.meta.dirname, '../../gpu-runner/core')
const OUTPUT = join(import.meta.dirname, '../../build/neon')
/** As in build.ts. */
const FLAGS = ['-std=c++17', '-O2', '-DNDEBUG', '-ffp-contract=off', '-fno-math-errno', '-pthread', '-w', `-I${CORE}`]

const tools = aarch64()
const MAINS = ['replay', 'replay-analysis', 'replay-initial'] as const
let core: Core
let native: AnalysisLibrary

beforeAll(async () => {
  core = await loadCore()
  native = await openAnalysisLibrary()
  const options = { compiler: tools.compiler, flags: FLAGS, headers: [CORE, import.meta.dirname], folder: OUTPUT }
  const needed = (await readdir(CORE)).filter((name) => name.endsWith('.cpp') && !/^(roofline|(tile|analysis)_avx)/.test(name))
  const objects = await compileObjects(needed.map((name) => join(CORE, name)), options)
  const mains = await compileObjects(MAINS.map((name) => join(import.meta.dirname, `${name}.cpp`)), options)
  await Promise.all(MAINS.map((name, i) => makeFile(join(OUTPUT, name), tools.compiler, ['-static', '-pthread', mains[i]!, ...objects])))
  await removeOld(OUTPUT, /./)
}, 600_000)

function onArm(program: (typeof MAINS)[number], args: readonly number[], input: Buffer): Buffer {
  const [command, ...before] = [...tools.run, join(OUTPUT, program)]
  const { status, stdout, stderr } = spawnSync(command!, [...before, ...args.map(String)], { input, maxBuffer: 2 ** 30 })
  if (status !== 0) throw new Error(`${program} ended with ${status}: ${stderr}`)
  return stdout
}

const mergedOnArm = (path: CorePath, threads: number, merges: readonly RandomMerge[]) => replayedMerges(onArm('replay', [PATHS[path], threads], recordedMerges(merges)))

async function here({ spec, reference, operands }: RandomMerge): Promise<{ out: Buffer; figures: MergeFigures }> {
  const merge = core.tensor(spec)
  if (merge.measures) await merge.measureRows(0, spec.rows, reference.w)
  const out = Buffer.alloc(reference.w.length)
  await merge.mergeRows(0, spec.rows, reference.w, out, operands)
  return { out, figures: merge.finish() }
}

async function expectSame(path: CorePath, threads: number, specs: readonly Case[]) {
  const merges = specs.map(build)
  const actual = mergedOnArm(path, threads, merges)
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
  const actual = mergedOnArm('neon', 1, merges)
  for (const [i, merge] of merges.entries()) expect(actual[i]).toEqual(await here(merge))
}, 60_000)

/** The bits of the sums and matches, by the plain path of this machine. */
async function analyzedHere({ spec, w, evolved, products }: RandomAnalysis): Promise<readonly [Buffer, Buffer]> {
  const handle = native.create(CORE_DTYPES[spec.baseDtype]!, CORE_DTYPES[spec.dtype]!, spec.rows, spec.cols)
  try {
    for (const { contribution: { left, right, rank, scale } } of products) {
      const [b, a] = [left, right].map((factor) => ({ ...factor, dtype: CORE_DTYPES[factor.dtype]! }))
      native.add(handle, b!, a!, rank, scale)
    }
    const sampled = spec.sample?.rows ?? []
    if (spec.sample !== null) native.sample(handle, sampled, spec.sample.bytes)
    await native.rows(handle, 'scalar', 1, 0, spec.rows, w.bytes, evolved.bytes)
    const sums = await native.finish(handle, 'scalar')
    return [Buffer.from(Float64Array.from(SUMS, (name) => sums[name]).buffer), Buffer.from(native.matches(handle, sampled.length).buffer)]
  } finally {
    native.free(handle)
  }
}

describe.each<[CorePath, number, number]>([['scalar', 1, 1000], ['neon', 1, 1000], ['neon', 3, 37]])('the analysis by the path %s on ARM, in %d threads, %d rows at a time, gives the bits of this machine', (path, threads, tile) => {
  const shape = { base: 'BF16', target: 'BF16', factors: 'F32', rows: 37, cols: 301, ranks: [3, 5] } as const
  test.each<[string, readonly Omit<AnalysisCase, 'seed'>[]]>([
    ['every dtype', (['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'] as const).flatMap((base) => (['F32', 'F16', 'BF16'] as const).map((factors) => ({ ...shape, base, target: base === 'F16' ? 'BF16' : base, factors })))],
    ['odd shapes', [1, 2, 5, 31, 33, 65].flatMap((rows) => [1, 7, 32, 255, 257, 600].map((cols) => ({ ...shape, rows, cols, ranks: [2, 1], transpose: rows % 2 === 0 })))],
    ['high ranks, many tiles', [{ ...shape, rows: 203, cols: 777, ranks: [40, 21] }, { ...shape, rows: 400, cols: 64, ranks: [70] }]],
    ['subnormals and numbers near overflow', [2 ** -1040, 2 ** -520, 2 ** 500].map((size) => ({ ...shape, base: 'F64', target: 'F64', size }))],
  ])('%s', async (_name, specs) => {
    const analyses = specs.map((one, seed) => randomAnalysis({ ...one, seed: seed + 1 }))
    const actual = replayedPairs(onArm('replay-analysis', [PATHS[path], threads, tile], recordedAnalyses(analyses)))
    expect(actual).toHaveLength(analyses.length)
    for (const [i, analysis] of analyses.entries()) {
      const expected = await analyzedHere(analysis)
      expect(new Float64Array(expected[0].buffer)[SUMS.indexOf('patchSquared')], JSON.stringify(specs[i])).toBeGreaterThan(0)
      for (const part of [0, 1] as const) expect(actual[i]![part].equals(expected[part]), JSON.stringify(specs[i])).toBe(true)
    }
  }, 120_000)
})

test('the factors of PiSSA and OLoRA on ARM have the bits of this machine', async () => {
  const next = random(9)
  const bases = ([[130, 97, 'BF16'], [97, 300, 'F16'], [60, 1100, 'F32'], [33, 1, 'F32']] as const).flatMap(([rows, cols, dtype]) => (['pissa', 'olora'] as const).map((method): InitialFactorsSpec => {
    const { bytes } = stored(dtype, Array.from({ length: rows * cols }, () => (next() + next() + next() - 1.5) / 16))
    return { method, dtype, rows, cols, rank: Math.min(5, cols), base: bytes }
  }))
  const actual = replayedPairs(onArm('replay-initial', [2], recordedBases(bases)))
  for (const [i, base] of bases.entries()) {
    const { left, right } = await core.initialFactors(base)
    expect([actual[i]![0].equals(left.bytes), actual[i]![1].equals(right.bytes)], `${base.method} ${base.dtype}`).toEqual([true, true])
  }
}, 120_000)

test('the programs are for ARM', () => {
  for (const name of MAINS) expect(execFileSync('od', ['-An', '-tu2', '-j18', '-N2', join(OUTPUT, name)], { encoding: 'utf8' }).trim()).toBe('183')
})
