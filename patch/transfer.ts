/**
 * What our own ports say of another one. A port is a patch that was put onto an evolved model and scored there; its read
 * drift, ‖D·Q_A‖/‖W·Q_A‖ of the whole patch, was chosen as the figure to calibrate on before any port was measured.
 */

/** One port of our own. Scores are accuracies of one task. */
export interface PortRun {
  readonly task: string
  readonly seed: number
  /** Evolutions between its base and the target. */
  readonly evolutions: number
  /** Null where the analysis could not say. */
  readonly readDrift: number | null
  /** What the patch adds to the score of its own base, and the standard error of that. */
  readonly gain: number
  readonly gainError: number | null
  /** What it adds to the target's score, over `gain`; null where there was no gain. */
  readonly kept: number | null
}

/** Ports whose read drift lies from `from` to `to`. */
export interface TransferBand {
  readonly from: number
  readonly to: number
  readonly runs: number
  readonly tasks: number
  /** Those of the runs that kept at least KEPT_ENOUGH of their gain. */
  readonly transferred: number
  readonly medianKept: number
  readonly verdict: 'likely' | 'open' | 'unlikely'
}

export interface Calibration {
  /** What it rests on: usable ports, and the tasks that they are of. */
  readonly runs: number
  readonly tasks: number
  /** By rising read drift; null below LEAST. */
  readonly bands: readonly TransferBand[] | null
}

/** Fewer ports, or ports of fewer tasks, say nothing; nor does a band of fewer runs. */
export const LEAST = { runs: 8, tasks: 2, runsInBand: 4 }
/** A port that keeps so much of its gain has transferred. */
export const KEPT_ENOUGH = 0.5
/** Of a normal distribution: 95% lie within. */
const Z = 1.96

interface UsableRun { readonly task: string; readonly readDrift: number; readonly kept: number }

/**
 * Bands of read drift with what became of the ports in them. Where more drift went with better ports, the bands are taken
 * together, so that the share that transferred never rises with the drift. Ports count where the patch had gained at least
 * two standard errors on its own base: of less than that no part can be said to be kept.
 */
export function calibrateTransfer(ports: readonly PortRun[]): Calibration {
  const runs = ports.flatMap(usable).toSorted((a, b) => a.readDrift - b.readDrift)
  const tasks = countTasks(runs)
  if (runs.length < LEAST.runs || tasks < LEAST.tasks) return { runs: runs.length, tasks, bands: null }
  return { runs: runs.length, tasks, bands: pool(cut(runs)).map(describe) }
}

function usable({ task, readDrift, gain, gainError, kept }: PortRun): UsableRun[] {
  if (readDrift === null || gainError === null || kept === null || !(gain > 0) || gain < 2 * gainError) return []
  return Number.isFinite(readDrift) && Number.isFinite(kept) ? [{ task, readDrift, kept }] : []
}

/** Runs of equal drift stay together; what is left over at the end belongs to the last band. */
function cut(runs: readonly UsableRun[]): UsableRun[][] {
  const bands: UsableRun[][] = []
  for (const run of runs) {
    const last = bands.at(-1)
    if (last === undefined || (last.length >= LEAST.runsInBand && last.at(-1)!.readDrift < run.readDrift)) bands.push([run])
    else last.push(run)
  }
  const rest = bands.length > 1 && bands.at(-1)!.length < LEAST.runsInBand ? bands.pop()! : []
  bands.at(-1)!.push(...rest)
  return bands
}

/** Pool adjacent violators. */
function pool(bands: readonly UsableRun[][]): UsableRun[][] {
  const pooled: UsableRun[][] = []
  for (const band of bands) {
    let next = band
    while (pooled.length > 0 && share(pooled.at(-1)!) <= share(next)) next = [...pooled.pop()!, ...next]
    pooled.push(next)
  }
  return pooled
}

function describe(runs: readonly UsableRun[]): TransferBand {
  const kept = runs.map((run) => run.kept).toSorted((a, b) => a - b)
  const half = kept.length >> 1
  const tasks = countTasks(runs)
  const transferred = countTransferred(runs)
  return {
    from: runs[0]!.readDrift, to: runs.at(-1)!.readDrift, runs: runs.length, tasks, transferred,
    medianKept: kept.length % 2 === 1 ? kept[half]! : (kept[half - 1]! + kept[half]!) / 2,
    verdict: tasks < LEAST.tasks ? 'open' : verdictOf(transferred, runs.length),
  }
}

/** By Wilson's interval of the share. */
function verdictOf(transferred: number, runs: number): TransferBand['verdict'] {
  const centre = (transferred + Z ** 2 / 2) / (runs + Z ** 2)
  const half = (Z / (runs + Z ** 2)) * Math.sqrt((transferred * (runs - transferred)) / runs + Z ** 2 / 4)
  return centre - half > 0.5 ? 'likely' : centre + half < 0.5 ? 'unlikely' : 'open'
}

function share(runs: readonly UsableRun[]): number {
  return countTransferred(runs) / runs.length
}

function countTransferred(runs: readonly UsableRun[]): number {
  return runs.filter(hasTransferred).length
}

/** What is half of a gain in questions is not always half of it in floating point. */
export function hasTransferred({ kept }: { readonly kept: number }): boolean {
  return kept >= KEPT_ENOUGH - 1e-9
}

function countTasks(runs: readonly { readonly task: string }[]): number {
  return new Set(runs.map(({ task }) => task)).size
}

/** What the calibration says of one port. */
export interface Transfer extends Omit<Calibration, 'bands'> {
  readonly readDrift: number | null
  /** Null where nothing is claimed. */
  readonly band: TransferBand | null
  /** In words. */
  readonly says: string
}

/** `readDrift` of the whole patch on the target. Between two bands the one of more drift counts; outside of all, none does. */
export function transferOf({ runs, tasks, bands }: Calibration, readDrift: number | null): Transfer {
  const inside = readDrift !== null && bands !== null && readDrift >= bands[0]!.from
  const band = inside ? (bands.find(({ to }) => readDrift <= to) ?? null) : null
  return { runs, tasks, readDrift, band, says: inWords({ runs, tasks, bands }, readDrift, band) }
}

function inWords({ runs, tasks, bands }: Calibration, readDrift: number | null, band: TransferBand | null): string {
  const restsOn = `${count(runs, 'run')} of our own over ${count(tasks, 'task')}`
  if (bands === null) return `not calibrated: it would rest on ${restsOn}, and takes at least ${LEAST.runs} over ${LEAST.tasks}; nothing is claimed`
  if (readDrift === null) return `nothing is claimed: the analysis has no read drift; calibrated on ${restsOn}`
  if (band === null) return `nothing is claimed: a read drift of ${short(readDrift)} is outside of what was measured, ${short(bands[0]!.from)} to ${short(bands.at(-1)!.to)} in ${restsOn}`
  const words = { likely: 'likely to transfer', open: 'may transfer or not', unlikely: 'unlikely to transfer' }[band.verdict]
  return `${words}: of ${count(band.runs, 'run')} of our own over ${count(band.tasks, 'task')} with a read drift of ${short(band.from)} to ${short(band.to)} (here ${short(readDrift)}), ${band.transferred} kept at least ${KEPT_ENOUGH * 100}% of the gain (median ${Math.round(100 * band.medianKept)}%)`
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)))
}
