import type { Analysis, AnalysisFigures } from '../patch/analysis.ts'
import { formatTable } from './format.ts'

/** The columns of figures: their heading, what they are, and their text. */
export const FIGURE_COLUMNS: readonly { readonly heading: string; readonly meaning: string; readonly text: (figures: AnalysisFigures) => string | null }[] = [
  { heading: 'drift', meaning: '‖D‖/‖W‖: how far the target has moved from the base', text: ({ relativeDrift }) => percent(relativeDrift) },
  { heading: 'patch/drift', meaning: '‖P‖/‖D‖: the size of the patch beside that', text: ({ patchOverDrift }) => number(patchOverDrift) },
  { heading: 'interference', meaning: 'cosine of D and P: negative where the update opposes the patch', text: ({ interference }) => number(interference) },
  { heading: 'read lift', meaning: 'share of the drift in the directions that the patch reads from, over chance', text: ({ seen }) => number(seen.read?.lift ?? null) },
  { heading: 'write lift', meaning: 'the same for the directions that it writes to', text: ({ seen }) => number(seen.write?.lift ?? null) },
  { heading: 'read drift', meaning: 'relative drift within the directions that the patch reads from', text: ({ readDrift }) => percent(readDrift) },
  { heading: 'write drift', meaning: 'the same for the directions that it writes to', text: ({ writeDrift }) => percent(writeDrift) },
  { heading: 'rounding', meaning: '‖round(W′+P) − W′ − P‖/‖P‖: what the dtype of the target loses of the patch', text: ({ roundingLoss }) => percent(roundingLoss) },
  { heading: 'moved rows', meaning: 'sampled rows of the base that are nearer to another row of the target than to their own', text: ({ rowMatch }) => (rowMatch === null ? null : `${rowMatch.elsewhere} of ${rowMatch.sampled}`) },
]

/** The first figures in one line. */
export function figuresLine(figures: AnalysisFigures): string {
  return FIGURE_COLUMNS.slice(0, 3).map(({ heading, text }) => `${heading} ${text(figures) ?? 'unknown'}`).join(', ')
}

/** A row for each part of the model and one for the whole; with `layers` one for each layer's parts as well. */
export function analysisTable(analysis: Analysis, layers: boolean): string {
  const figures = (of: AnalysisFigures) => FIGURE_COLUMNS.map(({ text }) => text(of))
  const parts = formatTable(['part', 'tensors', ...FIGURE_COLUMNS.map(({ heading }) => heading)], [
    ...analysis.parts.map((entry) => [entry.part, String(entry.tensors), ...figures(entry.figures)]),
    ['whole', String(analysis.tensors.length), ...figures(analysis.whole)],
  ])
  if (!layers) return parts
  const stacks = new Set(analysis.layers.map(({ stack }) => stack)).size > 1
  const byLayer = formatTable(['layer', 'part', ...FIGURE_COLUMNS.map(({ heading }) => heading)], analysis.layers.map((entry) => [`${stacks ? `${entry.stack}.` : ''}${entry.layer}`, entry.part, ...figures(entry.figures)]))
  return `${parts}\n\n${byLayer}`
}

function percent(value: number | null): string | null {
  return value === null ? null : `${significant(100 * value)}%`
}

function number(value: number | null): string | null {
  return value === null ? null : significant(value)
}

/** Three significant digits, without an exponent where people can read it. */
function significant(value: number): string {
  return value === 0 ? '0' : Math.abs(value) >= 1e-4 && Math.abs(value) < 1e6 ? String(Number(value.toPrecision(3))) : value.toExponential(2)
}
