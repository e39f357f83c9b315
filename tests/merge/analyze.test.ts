import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { analyzeFolders } from '../../cli/local-analysis.ts'
import type { Session } from '../../cli/session.ts'
import type { Analysis, AnalysisFigures } from '../../patch/analysis.ts'
import { pythonPath } from '../../gpu-runner/python-environment.ts'

const SCRIPT = fileURLToPath(new URL('../python/analysis.py', import.meta.url))
const FIXTURES = fileURLToPath(new URL('../fixtures', import.meta.url))
/** Of figures that both compute in float64. */
const PRECISION = 1e-9
/** The merge adds in float32 and sums its own figures so, where numpy has float64. */
const MERGE_PRECISION = 1e-4
/** A loss this small is that of float32 itself. */
const MERGE_NOISE = 2 ** -22

const session: Session = { quiet: true, signal: new AbortController().signal, note: () => {}, warn: () => {}, connect: () => Promise.reject(new Error('no registry is needed')) }

type Oracle = Record<string, Omit<AnalysisFigures, 'nonFinite'> & { patchNormByTrace: number }>
interface Triple { readonly base: string; readonly target: string; readonly patch: string }

const folder = await mkdtemp(join(tmpdir(), 'portllm-analysis-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Embeddings, rank-stabilised scales, ranks and scales by pattern. */
const trained = ([['llama', 'patch-kind-embeddings'], ['mistral', 'patch-kind-rslora'], ['gemma2', 'patch-kind-patterns']] as const).map(([family, patch]) => ({ base: join(FIXTURES, family, 'base'), target: join(FIXTURES, family, 'evolved'), patch: join(FIXTURES, family, patch) }))

const made = ([
  ['base-f32', 'drifted-f16', 'patch'], ['base', 'drifted-f16', 'patch'], ['base', 'permuted', 'patch'], ['base-f32', 'opposed', 'patch'], ['base', 'base', 'patch'],
  ['base', 'drifted', 'patch-nearly-dependent'], ['base', 'drifted', 'patch-dependent'], ['base', 'drifted', 'patch-untrained'],
] as const).map(([base, target, patch]) => ({ base: join(folder, base), target: join(folder, target), patch: join(folder, patch) }))

const oracles = await askOracle([...trained, ...made])

/** Once for all: importing numpy and torch takes longer than everything else. */
async function askOracle(triples: readonly Triple[]): Promise<Map<string, Oracle>> {
  const keys = triples.map(({ base, target, patch }) => [base, target, patch])
  const { stdout } = await promisify(execFile)(await pythonPath(), [SCRIPT, folder, JSON.stringify(keys)], { maxBuffer: 64 * 2 ** 20 })
  return new Map((JSON.parse(stdout) as Oracle[]).map((oracle, index) => [keys[index]!.join(), oracle]))
}

async function both({ base, target, patch }: Triple): Promise<{ ours: Analysis; oracle: Oracle }> {
  return { ours: await analyzeFolders(session, { base, target, patch }), oracle: oracles.get([base, target, patch].join())! }
}

function triple(base: string, target: string, patch = 'patch'): Triple {
  return { base: join(folder, base), target: join(folder, target), patch: join(folder, patch) }
}

/** Every figure of every tensor beside numpy's. */
function expectSame({ ours, oracle }: { ours: Analysis; oracle: Oracle }): void {
  expect(ours.unmeasured).toEqual([])
  expect(ours.tensors.map(({ name }) => name).sort()).toEqual(Object.keys(oracle).sort())
  for (const { name, figures } of ours.tensors) {
    const { patchNormByTrace, roundingLoss, ...expected } = oracle[name]!
    const { nonFinite, roundingLoss: ownLoss, ...own } = figures
    expect(nonFinite).toBe(0)
    if (roundingLoss !== null && roundingLoss < MERGE_NOISE) expect(ownLoss).toBeLessThan(MERGE_NOISE)
    else expectClose(ownLoss, roundingLoss, `${name} roundingLoss`, MERGE_PRECISION)
    expectClose(own.patchNorm, patchNormByTrace, `${name} patchNormByTrace`)
    expectClose(own, expected, name)
  }
}

function expectClose(found: unknown, expected: unknown, path: string, precision = PRECISION): void {
  if (expected !== null && typeof expected === 'object') {
    expect(Object.keys((found ?? {}) as object).sort(), path).toEqual(Object.keys(expected).sort())
    for (const [key, value] of Object.entries(expected)) expectClose((found as Record<string, unknown>)[key], value, `${path} ${key}`, precision)
  } else if (typeof expected === 'number' && expected !== 0) {
    expect(Math.abs((found as number) / expected - 1), `${path}: ${String(found)}, numpy has ${expected}`).toBeLessThan(precision)
  } else {
    expect(found, path).toBe(expected)
  }
}

describe('the figures of really trained models are those of numpy', () => {
  it.each(trained.map((one) => [relative(FIXTURES, one.patch), one] as const))('%s', async (_, one) => {
    const { ours, oracle } = await both(one)
    expectSame({ ours, oracle })
    // The model evolved in place: no row is taken for another.
    expect(ours.whole.rowMatch!.elsewhere).toBe(0)
    expect(ours.whole.relativeDrift).toBeGreaterThan(0.01)
  })
})

describe('models made to tell the figures apart', () => {
  const part = (analysis: Analysis, name: string) => analysis.parts.find((entry) => entry.part === name)!.figures

  it('base and target in different dtypes', async () => {
    expectSame(await both(triple('base-f32', 'drifted-f16')))
    expectSame(await both(triple('base', 'drifted-f16')))
  })

  it('a target whose units were permuted: the rows of up_proj are found elsewhere, those of attention at home', async () => {
    const { ours, oracle } = await both(triple('base', 'permuted'))
    expectSame({ ours, oracle })
    const up = ours.tensors.filter(({ name }) => name.includes('up_proj')).map(({ figures }) => figures.rowMatch!)
    for (const { sampled, elsewhere, same, bestOther } of up) {
      // A permutation leaves one unit in 80 where it was.
      expect(elsewhere).toBeGreaterThanOrEqual(sampled - 1)
      expect(bestOther).toBeGreaterThan(0.9)
      expect(same).toBeLessThan(0.5)
    }
    expect(part(ours, 'attention').rowMatch).toMatchObject({ sampled: 16, elsewhere: 0 })
    expect(part(ours, 'attention').relativeDrift).toBeLessThan(0.1)
    expect(part(ours, 'mlp').relativeDrift).toBeGreaterThan(1)
  })

  it('an update that undoes the patch: the cosine is −1, and all of the drift lies in what the patch reads and writes', async () => {
    const { ours, oracle } = await both(triple('base-f32', 'opposed'))
    expectSame({ ours, oracle })
    const { figures } = ours.tensors.find(({ name }) => name === 'model.layers.0.self_attn.q_proj.weight')!
    expect(figures.interference).toBeCloseTo(-1, 6)
    expect(figures.patchOverDrift).toBeCloseTo(1 / 0.3, 4)
    expect(figures.seen.read!.share).toBeCloseTo(1, 6)
    expect(figures.seen.write!.lift).toBeCloseTo(32 / 4, 5)
    const { figures: other } = ours.tensors.find(({ name }) => name === 'model.layers.1.self_attn.q_proj.weight')!
    expect(Math.abs(other.interference!)).toBeLessThan(0.2)
  })

  it('a target that has not evolved has no drift, so that there is nothing to set the patch against', async () => {
    const { ours, oracle } = await both(triple('base', 'base'))
    expectSame({ ours, oracle })
    expect(ours.whole).toMatchObject({ relativeDrift: 0, patchOverDrift: null, interference: null, seen: { read: null, write: null }, readDrift: 0 })
  })

  it('factors that are nearly, or wholly, dependent, or zero', async () => {
    // Twelve orders of magnitude between columns: the trace formula keeps its digits, the bases theirs.
    expectSame(await both(triple('base', 'drifted', 'patch-nearly-dependent')))
    expectSame(await both(triple('base', 'drifted', 'patch-dependent')))
    const { ours, oracle } = await both(triple('base', 'drifted', 'patch-untrained'))
    expectSame({ ours, oracle })
    expect(ours.whole).toMatchObject({ patchNorm: 0, patchSpectralNorm: 0, interference: null, roundingLoss: null, seen: { write: null } })
  })
})
