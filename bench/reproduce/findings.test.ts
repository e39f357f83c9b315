import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import calibration from '../../patch/transfer-calibration.json' with { type: 'json' }
import { calibrateTransfer } from '../../patch/transfer.ts'
import { findings, portRuns } from './findings.ts'
import { openJournal, type JournalRow } from './journal.ts'
import { PLANS, type Plan } from './plan.ts'
import { publish, renderReport } from './report.ts'
import { rankCorrelation } from './statistics.ts'
import { planSteps, type StepWork } from './steps.ts'

const PLAN: Plan = { ...PLANS.tiny, seeds: [1, 2], evolutions: [PLANS.tiny.evolutions[0]!, PLANS.tiny.evolutions[0]!] }
const SCORE = { task: 'kind', version: '1', stderr: 0.02, samples: 100 }
const COST = { wall_seconds: 2, device_seconds: 1, peak_memory_bytes: 100 * 2 ** 20 }

/** Alone 0.5; ported: seed 1 0.9, 0.8, 0.7 and seed 2 0.9, 0.6, 0.5; afresh 0.9; drift 1, 2 and interference 0. */
function result(work: StepWork): unknown {
  switch (work.kind) {
    case 'data': return { packages: [], tasks: {}, texts: {} }
    case 'evolve': case 'finetune': return { ...COST, wall_seconds: 20, peak_memory_bytes: 400 * 2 ** 20, device: 'a processor', versions: { torch: '1' } }
    case 'alone': return { scores: [{ ...SCORE, value: 0.5 }] }
    case 'score': return { merge: COST, scores: [{ ...SCORE, value: work.from === work.model ? 0.9 : { 1: [0, 0.8, 0.7], 2: [0, 0.6, 0.5] }[work.seed]![work.model] }] }
    case 'analyze': return { cost: COST, whole: { relativeDrift: work.model, interference: 0, readDrift: null, writeDrift: null, patchOverDrift: null, roundingLoss: null }, parts: [] }
  }
}

async function journal(isDone: (work: StepWork) => boolean) {
  const steps = await planSteps(PLAN)
  const rows = new Map(steps.filter(({ work }) => isDone(work)).map(({ id, key, work }): [string, JournalRow] => [key, { key, id, kind: work.kind, at: '', seconds: 1, load: 0, result: result(work) }]))
  return { steps, rows }
}

test('scores are told apart by model, patch and seed', async () => {
  const { steps, rows } = await journal(() => true)
  const found = findings(PLAN, steps, rows)
  expect(found.done).toBe(found.steps)
  expect(found.comparisons.map(({ model, alone, ported, fresh }) => [model, alone!.value, ported.map(({ value }) => value), fresh.map(({ value }) => value)])).toEqual([
    [0, 0.5, [0.9, 0.9], [0.9, 0.9]],
    [1, 0.5, [0.8, 0.6], [0.9, 0.9]],
    [2, 0.5, [0.7, 0.5], [0.9, 0.9]],
  ])
})

test('a port is measured against the same patch on its own base', async () => {
  const { steps, rows } = await journal(() => true)
  const { ports, predictions } = findings(PLAN, steps, rows)
  const rounded = ports.map(({ seed, model, change, kept }) => [seed, model, Number(change.toFixed(9)), Number(kept.toFixed(9))])
  expect(rounded.toSorted()).toEqual([[1, 1, -0.1, 0.75], [1, 2, -0.2, 0.5], [2, 1, -0.3, 0.25], [2, 2, -0.4, 0]])
  const correlations = new Map(predictions.map(({ figure, change }) => [figure, change]))
  expect(correlations.get('relative drift')).toBeCloseTo(-2 / Math.sqrt(20), 9)
  expect(correlations.get('interference')).toBeNull()
})

test('costs are those of porting, not of merging a patch onto its own base', async () => {
  const { steps, rows } = await journal(() => true)
  const { costs } = findings(PLAN, steps, rows)
  expect(costs.port).toEqual({ runs: 4, cost: COST, device_hours: 4 / 3_600 })
  expect(costs.finetune!.runs).toBe(6)
})

test('half of the results give half of a report, which says so', async () => {
  const { steps, rows } = await journal((work) => !('seed' in work) || (work.seed === 1 && work.kind !== 'analyze'))
  const input = { plan: PLAN, steps, journal: [...rows.values()], findings: findings(PLAN, steps, rows) }
  const text = renderReport(input)
  expect(text).toContain(`**Partial: ${rows.size} of ${steps.length} steps`)
  expect(text).toContain('| kind | 2 | 0.500 ± 0.020 | 0.700 ± 0.020 | 0.900 ± 0.020 | −0.200 | 50% | 1, 1 |')
  expect(text).not.toContain('Left out')
  expect(text).not.toContain('nothing of the claim is shown')
  expect(text).toContain('| kind | 0 | 0.500 ± 0.020 | 0.900 ± 0.020 | the same patch |  |  | 1 |')
  expect(text).toContain('No port has been both scored and analyzed yet.')
  expect(text).toContain('| training over porting |  | 10.0 × | 1.0 × | 4.0 × |  |')
})

test('what is not measured at all is counted, and not shown', async () => {
  const { steps, rows } = await journal((work) => work.kind === 'data' || (work.kind === 'alone' && work.model === 0))
  const text = renderReport({ plan: PLAN, steps, journal: [...rows.values()], findings: findings(PLAN, steps, rows) })
  expect(text).toContain('| kind | 0 | 0.500 ± 0.020 | not measured | the same patch |  |  | 0 |')
  expect(text).toContain('Left out: 2 of 3 rows')
  expect(text).toContain('so nothing of the claim is shown')
})

test('a complete report does not call itself partial, and says how few ports it rests on', async () => {
  const { steps, rows } = await journal(() => true)
  const text = renderReport({ plan: PLAN, steps, journal: [...rows.values()], findings: findings(PLAN, steps, rows) })
  expect(text).not.toContain('Partial')
  expect(text).toContain('over 4 ports. These are too few to say anything')
})

test('a port of seeds counts by its gain on its own base, and its error', async () => {
  const { steps, rows } = await journal(() => true)
  const ports = portRuns(findings(PLAN, steps, rows))
  expect(ports).toHaveLength(4)
  for (const { gain, gainError } of ports) expect([gain, gainError]).toEqual([expect.closeTo(0.4, 9), expect.closeTo(0.02 * Math.SQRT2, 9)])
  expect(calibrateTransfer(ports)).toEqual({ runs: 0, tasks: 0, bands: null })
  const drifting = ports.map((port) => ({ ...port, readDrift: port.evolutions }))
  expect(calibrateTransfer(drifting)).toEqual({ runs: 4, tasks: 1, bands: null })
})

test('publishing writes the bands that follow from the ports, and says them in the report', async () => {
  const plan: Plan = { ...PLAN, tasks: { kind: PLAN.tasks.kind!, other: PLAN.tasks.kind! } }
  const steps = await planSteps(plan)
  const wide = (work: StepWork) => {
    if (work.kind === 'alone') return { scores: ['kind', 'other'].map((task) => ({ ...SCORE, task, value: 0.5 })) }
    return work.kind === 'analyze' ? { cost: COST, whole: { relativeDrift: work.model, interference: 0, readDrift: work.model, writeDrift: null, patchOverDrift: null, roundingLoss: null }, parts: [] } : result(work)
  }
  const rows = new Map(steps.map(({ id, key, work }): [string, JournalRow] => [key, { key, id, kind: work.kind, at: '', seconds: 1, load: 0, result: wide(work) }]))
  const root = await mkdtemp(join(tmpdir(), 'portllm-publish-'))
  try {
    for (const name of ['docs', 'patch']) await mkdir(join(root, name))
    await writeFile(join(root, 'docs/reproduction.md'), '<!-- findings -->\nwhat was there\n<!-- end of findings -->\n')
    await publish(root, { plan, steps, journal: [...rows.values()], findings: findings(plan, steps, rows) })
    // One evolution: 3/4 and 1/4 of the gain kept, for two tasks; two: 1/2 and nothing.
    const bands = [{ from: 1, to: 2, runs: 8, tasks: 2, transferred: 4, medianKept: expect.closeTo(0.375, 9), verdict: 'open' }]
    expect(JSON.parse(await readFile(join(root, 'patch/transfer-calibration.json'), 'utf8'))).toMatchObject({ plan: 'tiny', runs: 8, tasks: 2, bands, ports: expect.objectContaining({ length: 8 }) })
    const text = await readFile(join(root, 'docs/reproduction.md'), 'utf8')
    expect(text).toContain('| 1 to 2 | 8 | 2 | 4 | 37% | open |')
    expect(text).not.toContain('what was there')
  } finally {
    await rm(root, { recursive: true })
  }
})

test('what resolutions say of transfer is what follows from the published results: npm run reproduce -- --only report --publish', async () => {
  const results = join(import.meta.dirname, '..', 'results')
  const { plan } = JSON.parse(await readFile(join(results, 'reproduce.json'), 'utf8')) as { plan: Plan }
  const { rows } = await openJournal(join(results, 'reproduce.jsonl'))
  const { ports, runs, tasks, bands } = calibration
  expect(ports).toEqual(portRuns(findings(plan, await planSteps(plan), rows)))
  expect({ runs, tasks, bands }).toEqual(calibrateTransfer(ports))
})

test('rank correlation, ties included, as SciPy gives it', () => {
  expect(rankCorrelation([[1, 10], [2, 20], [3, 30]])).toBeCloseTo(1, 12)
  // scipy.stats.spearmanr([1, 2, 2, 4, 5], [5, 6, 7, 8, 7])
  expect(rankCorrelation([[1, 5], [2, 6], [2, 7], [4, 8], [5, 7]])).toBeCloseTo(0.763_157_894_7, 9)
  expect(rankCorrelation([[1, 1], [2, 2]])).toBeNull()
  expect(rankCorrelation([[1, 1], [1, 2], [1, 3]])).toBeNull()
})
