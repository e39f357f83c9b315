import { scaleBand, scaleLinear } from 'd3-scale'
import { BAR_KINDS, type Bar, type BarKind, type Comparison, type ComparisonGroup } from './comparison.ts'

const BARS: Readonly<Record<BarKind, { readonly title: string; readonly colour: string }>> = {
  base: { title: 'Base', colour: '#94a3b8' },
  evolved: { title: 'Evolved', colour: '#475569' },
  ported: { title: 'Evolved + patch', colour: '#047857' },
  retrained: { title: 'Fine-tuned on evolved', colour: '#1d4ed8' },
}

const PANEL_WIDTH = 168
const PANEL_HEIGHT = 150
const PANELS_IN_ROW = 4
const GAP = 20
const LEFT = 44
const HEAD = 74
const ROW_HEIGHT = PANEL_HEIGHT + 62
const INK = '#0f172a'
const FAINT = '#64748b'

/** A comparison as one SVG document: a panel for each figure, bars with one standard error up and down. Depends on the figures alone. */
export function comparisonPicture(comparison: Comparison): string {
  const { groups, patch, target } = comparison
  const columns = Math.min(PANELS_IN_ROW, Math.max(1, groups.length))
  const width = Math.max(560, LEFT + columns * PANEL_WIDTH + (columns - 1) * (GAP + LEFT) + GAP)
  const height = HEAD + Math.max(1, Math.ceil(groups.length / columns)) * ROW_HEIGHT
  const kinds = BAR_KINDS.filter((kind) => groups.some(({ bars }) => bars.some((bar) => bar.kind === kind)))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" font-family="ui-sans-serif, system-ui, sans-serif" font-size="11" fill="${INK}">`,
    `<title>${escape(`${patch} on ${target}`)}</title>`,
    `<desc>${escape(describe(comparison))}</desc>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${GAP}" y="24" font-size="14" font-weight="600">${escape(`${patch} on ${target}`)}</text>`,
    ...kinds.map((kind, index) => legendEntry(kind, GAP + index * 132)),
    ...(kinds.length === 0 ? [`<text x="${GAP}" y="${HEAD + 20}" fill="${FAINT}">Nothing was measured yet.</text>`] : []),
    ...groups.map((group, index) => panel(group, kinds, LEFT + (index % columns) * (PANEL_WIDTH + GAP + LEFT), HEAD + Math.floor(index / columns) * ROW_HEIGHT)),
    '</svg>\n',
  ].join('\n')
}

function legendEntry(kind: BarKind, x: number): string {
  const { title, colour } = BARS[kind]
  return `<rect x="${x}" y="36" width="11" height="11" fill="${colour}"/><text x="${x + 16}" y="46">${title}</text>`
}

function panel(group: ComparisonGroup, kinds: readonly BarKind[], left: number, top: number): string {
  const ends = group.bars.flatMap(({ value, stderr }) => [value - (stderr ?? 0), value + (stderr ?? 0)])
  const y = scaleLinear().domain([Math.min(0, ...ends), Math.max(0, ...ends) || 1]).nice(4).range([top + PANEL_HEIGHT, top + 16])
  const x = scaleBand(kinds, [left, left + PANEL_WIDTH]).padding(0.2)
  const ticks = y.ticks(4)
  const label = y.tickFormat(4)
  const grid = ticks.map((tick) => `<path d="M${left} ${round(y(tick))}h${PANEL_WIDTH}" stroke="${tick === 0 ? '#94a3b8' : '#e2e8f0'}"/><text x="${left - 6}" y="${round(y(tick) + 4)}" text-anchor="end" fill="${FAINT}">${label(tick)}</text>`)
  const bars = group.bars.map((bar) => barOf(bar, x(bar.kind)!, x.bandwidth(), y))
  return [
    `<g><text x="${left}" y="${top + 4}" font-weight="600">${escape(shortened(`${group.task} ${group.metric}`))}</text>`,
    ...grid, ...bars,
    `<text x="${left}" y="${top + PANEL_HEIGHT + 16}" fill="${FAINT}">${escape(shortened(conditions(group)))}</text>`,
    `<text x="${left}" y="${top + PANEL_HEIGHT + 30}" fill="${FAINT}">${group.higher_is_better ? 'higher is better' : 'lower is better'}</text></g>`,
  ].join('\n')
}

function barOf({ kind, subject, value, stderr }: Bar, left: number, width: number, y: (value: number) => number): string {
  const [from, to] = [Math.min(y(0), y(value)), Math.max(y(0), y(value))]
  const rect = `<rect x="${round(left)}" y="${round(from)}" width="${round(width)}" height="${round(to - from)}" fill="${BARS[kind].colour}"><title>${escape(`${subject}: ${figure({ value, stderr })}`)}</title></rect>`
  if (stderr === null) return rect
  const middle = round(left + width / 2)
  const [high, low] = [round(y(value + stderr)), round(y(value - stderr))]
  return `${rect}<path d="M${middle} ${high}V${low}M${middle - 4} ${high}h8M${middle - 4} ${low}h8" stroke="${INK}" fill="none"/>`
}

function conditions({ version, num_fewshot, limit, bars }: ComparisonGroup): string {
  const samples = Math.max(...bars.map((bar) => bar.samples))
  return [`v${version}`, num_fewshot === null ? null : `${num_fewshot}-shot`, `${samples} questions${limit === null ? '' : ' (limited)'}`].filter((part) => part !== null).join(', ')
}

/** What the picture says, for those who cannot see it. */
function describe({ patch, base, target, groups }: Comparison): string {
  const told = groups.map((group) => `${group.task} ${group.metric}: ${group.bars.map((bar) => `${BARS[bar.kind].title.toLowerCase()} ${figure(bar)}`).join(', ')}`)
  return `${patch}, trained on ${base}, on ${target}, with standard errors. ${told.join('. ')}.`
}

function figure({ value, stderr }: Pick<Bar, 'value' | 'stderr'>): string {
  return `${value.toPrecision(3)}${stderr === null ? '' : ` ± ${stderr.toPrecision(2)}`}`
}

function shortened(text: string): string {
  return text.length > 26 ? `${text.slice(0, 25)}…` : text
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

function escape(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`)
}
