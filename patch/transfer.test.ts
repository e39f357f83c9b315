import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LEAST, calibrateTransfer, hasTransferred, transferOf, type PortRun } from './transfer.ts'

const run = (readDrift: number | null, kept: number | null, more: Partial<PortRun> = {}): PortRun => ({ task: 'a', seed: 1, evolutions: 1, readDrift, gain: 0.3, gainError: 0.02, kept, ...more })
/** `n` runs over two tasks, at equal distances of drift. */
const runs = (from: number, kept: readonly number[]) => kept.map((value, index) => run(from + index / 100, value, { task: index % 2 === 0 ? 'a' : 'b' }))

const anyRun: fc.Arbitrary<PortRun> = fc.record({
  task: fc.constantFrom('a', 'b', 'c'),
  seed: fc.constantFrom(1, 2),
  evolutions: fc.integer({ min: 1, max: 4 }),
  // Few values, so that some are equal.
  readDrift: fc.option(fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 12 }).map((n) => n / 10) }, fc.double({ min: 0, max: 2, noNaN: true })), { freq: 20 }),
  gain: fc.constantFrom(0.3, 0.3, 0.3, 0.3, 0.03, 0, -0.1),
  gainError: fc.option(fc.constant(0.02), { freq: 20 }),
  kept: fc.option(fc.double({ min: -1, max: 2, noNaN: true }), { freq: 20 }),
})

describe('the bands of any runs', () => {
  it('have enough runs each, hold every usable run once, do not overlap, and never rise with the drift', () => {
    fc.assert(fc.property(fc.array(anyRun, { maxLength: 60, size: 'max' }), (ports) => {
      const usable = ports.filter(({ readDrift, kept, gain, gainError }) => readDrift !== null && kept !== null && gainError !== null && gain > 0 && gain >= 2 * gainError)
      const { runs: count, tasks, bands } = calibrateTransfer(ports)
      expect([count, tasks]).toEqual([usable.length, new Set(usable.map(({ task }) => task)).size])
      expect(bands === null).toBe(count < LEAST.runs || tasks < LEAST.tasks)
      if (bands === null) return
      expect(bands.reduce((sum, band) => sum + band.runs, 0)).toBe(count)
      for (const [index, band] of bands.entries()) {
        const inside = usable.filter(({ readDrift }) => readDrift! >= band.from && readDrift! <= band.to)
        expect(inside).toHaveLength(band.runs)
        expect(band.runs).toBeGreaterThanOrEqual(LEAST.runsInBand)
        expect(band.transferred).toBe(inside.filter(({ kept }) => hasTransferred({ kept: kept! })).length)
        const before = bands[index - 1]
        if (before === undefined) continue
        expect(before.to).toBeLessThan(band.from)
        expect(before.transferred / before.runs).toBeGreaterThan(band.transferred / band.runs)
      }
    }))
  })

  it('do not depend on the order of the runs', () => {
    fc.assert(fc.property(fc.array(anyRun, { maxLength: 40, size: 'max' }).chain((ports) => fc.tuple(fc.constant(ports), fc.shuffledSubarray(ports, { minLength: ports.length }))), ([ports, shuffled]) => {
      expect(calibrateTransfer(shuffled)).toEqual(calibrateTransfer(ports))
    }))
  })

  it('claim nothing outside of what was measured, and less with more drift', () => {
    const RANK = { likely: 2, open: 1, unlikely: 0 }
    fc.assert(fc.property(fc.array(anyRun, { minLength: 20, maxLength: 60, size: 'max' }), fc.double({ min: -1, max: 3, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }), (ports, drift, more) => {
      const calibration = calibrateTransfer(ports)
      const { band } = transferOf(calibration, drift)
      const drifts = ports.flatMap(({ readDrift }) => readDrift ?? [])
      if (calibration.bands === null || drift < Math.min(...drifts) || drift > Math.max(...drifts)) expect(band).toBeNull()
      const further = transferOf(calibration, drift + more).band
      if (band === null || further === null) return
      expect(further.transferred / further.runs).toBeLessThanOrEqual(band.transferred / band.runs)
      // Of as many runs and tasks, what has more drift is never called likelier.
      if (further.runs === band.runs && band.tasks > 1 && further.tasks > 1) expect(RANK[further.verdict]).toBeLessThanOrEqual(RANK[band.verdict])
    }))
  })
})

describe('too few runs', () => {
  it.each([
    ['none', [], '0 runs of our own over 0 tasks'],
    ['one less than it takes', runs(0.1, Array<number>(LEAST.runs - 1).fill(1)), '7 runs of our own over 2 tasks'],
    ['many of one task', Array.from({ length: 20 }, (_, index) => run(index / 100, 1)), '20 runs of our own over 1 task,'],
    ['many that gained nothing to keep', runs(0.1, Array<number>(20).fill(1)).map((port) => ({ ...port, gain: 0.03 })), '0 runs'],
  ] as const)('claim nothing and say so: %s', (_, ports, words) => {
    const transfer = transferOf(calibrateTransfer(ports), 0.1)
    expect(transfer.band).toBeNull()
    expect(transfer.says).toContain(`not calibrated: it would rest on ${words}`)
    expect(transfer.says).toContain('nothing is claimed')
  })
})

describe('bands in words', () => {
  const calibration = calibrateTransfer([...runs(0.1, [1, 0.9, 1, 0.8, 1, 0.9, 1, 0.9]), ...runs(0.3, [0.1, 0, 0.2, 0.1, -0.2, 0, 0.1, 0.3])])

  it('are likely, unlikely, and nothing beyond them', () => {
    expect(calibration.bands!.map(({ runs: count, transferred, verdict }) => [count, transferred, verdict])).toEqual([[8, 8, 'likely'], [8, 0, 'unlikely']])
    expect(transferOf(calibration, 0.12).says).toBe('likely to transfer: of 8 runs of our own over 2 tasks with a read drift of 0.1 to 0.17 (here 0.12), 8 kept at least 50% of the gain (median 95%)')
    expect(transferOf(calibration, 0.35).says).toMatch(/^unlikely to transfer: of 8 runs .*, 0 kept/)
    for (const drift of [0.05, 0.9]) expect(transferOf(calibration, drift).says).toMatch(/^nothing is claimed: a read drift of .* is outside of what was measured, 0\.1 to 0\.37 in 16 runs/)
    expect(transferOf(calibration, null)).toMatchObject({ band: null, says: expect.stringContaining('has no read drift') })
  })

  it('count half of a gain as enough, whatever its floating point', () => {
    expect([(0.7 - 0.5) / (0.9 - 0.5), 0.5, 0.499].map((kept) => hasTransferred({ kept }))).toEqual([true, true, false])
  })

  it('in a gap are those of the greater drift', () => {
    expect(transferOf(calibration, 0.25).band).toEqual(calibration.bands![1])
  })

  it('are open where the runs are of one task, or do not agree', () => {
    const oneTask = calibrateTransfer([...Array.from({ length: 8 }, (_, index) => run(0.1 + index / 100, 1)), ...runs(0.3, [0, 0, 0, 0])])
    expect(oneTask.bands!.map(({ verdict }) => verdict)).toEqual(['open', 'unlikely'])
    expect(calibrateTransfer(runs(0.1, [1, 0, 1, 0, 1, 0, 1, 0])).bands).toMatchObject([{ runs: 8, transferred: 4, verdict: 'open' }])
  })
})
