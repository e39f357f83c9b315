import { SingleBar } from 'cli-progress'
import { formatBytes } from './format.ts'

export interface Progress {
  update(done: number, total: number): void
  stop(): void
}

export type ProgressUnit = 'bytes' | 'count'

const SILENT: Progress = { update: () => {}, stop: () => {} }
const FIRST_LINE_MS = 2_000
const LINE_EVERY_MS = 10_000

/** A bar on a terminal; elsewhere a line on stderr once it takes longer than a moment; with `quiet` nothing. */
export function startProgress(label: string, unit: ProgressUnit, quiet: boolean): Progress {
  if (quiet) return SILENT
  return process.stderr.isTTY ? startBar(label, unit) : startLines(label, unit)
}

function startBar(label: string, unit: ProgressUnit): Progress {
  const show = formatter(unit)
  const bar = new SingleBar({
    stream: process.stderr, hideCursor: true, clearOnComplete: true, barsize: 30, etaBuffer: 100, gracefulExit: false,
    format: `${label} {bar} {percentage}% {shown} ETA {eta_formatted}`, barCompleteChar: '█', barIncompleteChar: '░',
  })
  let started = false
  return {
    update(done, total) {
      const shown = `${show(done)} of ${show(total)}`
      if (!started) bar.start(total, done, { shown })
      started = true
      bar.setTotal(total)
      bar.update(done, { shown })
    },
    stop() {
      if (started) bar.stop()
      started = false
    },
  }
}

function startLines(label: string, unit: ProgressUnit): Progress {
  const show = formatter(unit)
  let next = performance.now() + FIRST_LINE_MS
  return {
    update(done, total) {
      if (performance.now() < next) return
      next = performance.now() + LINE_EVERY_MS
      const percent = total > 0 ? Math.floor((100 * done) / total) : 0
      process.stderr.write(`${label}: ${percent}% (${show(done)} of ${show(total)})\n`)
    },
    stop() {},
  }
}

function formatter(unit: ProgressUnit): (value: number) => string {
  return unit === 'bytes' ? formatBytes : String
}
