import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { headerInputs } from './header-inputs.ts'
import { buildFuzzTarget, fuzz, readCorpus, TARGETS, type FuzzTarget } from './fuzz-target.ts'

/** Beyond the committed inputs; about ten seconds each on a processor of its own. */
const RUNS: Readonly<Record<FuzzTarget, number>> = { header: 60_000, adapter: 6_000, planner: 12_000 }
const SEED = 20261125

const folder = await mkdtemp(join(tmpdir(), 'portllm-fuzz-'))
// All that is not there yet is compiled here where `npm test` has not done so.
beforeAll(() => buildFuzzTarget('broken').then(() => undefined), 600_000)
afterAll(() => rm(folder, { recursive: true }))

async function inputs(name: string, contents: readonly Buffer[]): Promise<string> {
  const path = await mkdtemp(join(folder, `${name}-`))
  await Promise.all(contents.map((content, at) => writeFile(join(path, String(at)), content)))
  return path
}

test.concurrent.each(TARGETS)('%s: the corpus and what libFuzzer makes of it break nothing', async (target) => {
  const corpus = [...(await readCorpus(target)), ...(target === 'header' ? headerInputs() : [])]
  const run = await fuzz(await buildFuzzTarget(target), await inputs(target, corpus), { seed: SEED, runs: corpus.length + RUNS[target] })
  expect(run.finding, run.input === null ? '' : `input, in base64: ${run.input.toString('base64')}`).toBe('ok')
  expect(run.executions).toBeGreaterThanOrEqual(RUNS[target])
}, 600_000)

test.each([
  ['a', /AddressSanitizer: heap-buffer-overflow/],
  ['u', /runtime error: signed integer overflow/],
  ['s', /runtime error: shift exponent 63 is too large/],
  ['n', /runtime error: applying non-zero offset/],
  ['v', /Assertion '__n < this->size\(\)' failed/],
  ['m', /libFuzzer: out-of-memory \(malloc\(209715200\)\)/],
  ['l', /LeakSanitizer: detected memory leaks/],
])('what the sanitizers find ends a run: %s', async (input, finding) => {
  const run = await fuzz(await buildFuzzTarget('broken'), await inputs('broken', [Buffer.from(input)]), { seed: SEED, runs: 5 })
  expect(run.finding).toMatch(finding)
})
