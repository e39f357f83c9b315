import { scaleLinear } from 'd3-scale'
import { line } from 'd3-shape'
import type { Analysis, AnalysisFigures } from './analysis.ts'
import { largest } from './largest.ts'
import type { ModelPart } from './model-part.ts'

/** The figures that the picture shows, one row of panels each. */
const FIGURES: readonly { readonly title: string; readonly format: string; readonly value: (figures: AnalysisFigures) => number | null }[] = [
  { title: 'Relative drift  ‖D‖/‖W‖', format: '%', value: ({ relativeDrift }) => relativeDrift },
  { title: 'Interference  cos(D, P)', format: '', value: ({ interference }) => interference },
  { title: 'Patch over drift  ‖P‖/‖D‖', format: '', value: ({ patchOverDrift }) => patchOverDrift },
]

const PARTS: readonly { readonly part: ModelPart; readonly title: string; readonly colour: string }[] = [
  { part: 'attention', title: 'Attention', colour: '#1d4ed8' },
  { part: 'mlp', title: 'MLP', colour: '#b45309' },
  { part: 'other', title: 'Other', colour: '#475569' },
]
/** Stacks of layers, such as an encoder's and a decoder's, have lines of their own. */
const DASHES = ['', '5 3', '1 3', '8 3 1 3']

const WIDTH = 760
const LEFT = 64
const RIGHT = 16
const GAP = 28
const HEAD = 64
const PANEL_HEIGHT = 96
const ROW_HEIGHT = 140
const INK = '#0f172a'
const FAINT = '#64748b'

interface Panel {
  readonly x: number
  readonly y: number
  readonly width: number
}

/**
 * A small picture of an analysis as one SVG document: over the layers, relative drift, interference and patch over
 * drift, attention and MLP side by side on one scale. Depends on the figures alone.
 */
export function analysisPicture(analysis: Analysis): string {
  const parts = PARTS.filter(({ part }) => part !== 'other' || analysis.layers.some((entry) => entry.part === 'other'))
  const width = (WIDTH - LEFT - RIGHT - GAP * (parts.length - 1)) / parts.length
  const stacks = [...new Set(analysis.layers.map(({ stack }) => stack))]
  const legend = stacks.length < 2 ? 0 : 22
  const height = HEAD + FIGURES.length * ROW_HEIGHT + legend
  const body = FIGURES.flatMap((figure, row) => {
    const values = analysis.layers.flatMap(({ figures }) => figure.value(figures) ?? [])
    const y = scaleLinear().domain([values.reduce((least, value) => Math.min(least, value), 0), largest(values) || 1]).nice(4)
    return parts.map((part, column) => panel(analysis, figure, part, y, stacks, { x: LEFT + column * (width + GAP), y: HEAD + row * ROW_HEIGHT, width }, column === 0))
  })
  const title = 'Drift and patch, layer by layer'
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="t d" font-family="ui-sans-serif, system-ui, sans-serif" font-size="11" fill="${INK}">`,
    `<title id="t">${title}</title>`,
    `<desc id="d">${escape(describe(analysis))}</desc>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    ...parts.map(({ part, title: name, colour }, column) => heading(analysis, part, name, colour, LEFT + column * (width + GAP))),
    ...body,
    `<text x="${LEFT - 8}" y="${HEAD + 2 * ROW_HEIGHT + PANEL_HEIGHT + 32}" text-anchor="end" fill="${FAINT}">layer</text>`,
    ...(legend === 0 ? [] : stacks.map((stack, index) => legendEntry(stack, index, LEFT + index * 170, height - 10))),
    '</svg>\n',
  ].join('\n')
}

function heading({ parts }: Analysis, part: ModelPart, title: string, colour: string, x: number): string {
  const own = parts.find((entry) => entry.part === part)
  const tensors = own === undefined ? 'not changed by the patch' : `${own.tensors} ${own.tensors === 1 ? 'tensor' : 'tensors'}, drift ${percent(own.figures.relativeDrift)}`
  return `<text x="${x}" y="24" font-size="14" font-weight="600" fill="${colour}">${title}</text><text x="${x}" y="40" fill="${FAINT}">${tensors}</text>`
}

function panel({ layers }: Analysis, { title, format, value }: (typeof FIGURES)[number], { part, colour }: (typeof PARTS)[number], domain: ReturnType<typeof scaleLinear<number, number>>, stacks: readonly string[], at: Panel, isFirst: boolean): string {
  const last = largest(layers.map(({ layer }) => layer))
  const x = scaleLinear().domain(last === 0 ? [-1, 1] : [0, last]).range([at.x + 4, at.x + at.width - 4])
  const y = domain.copy().range([at.y + PANEL_HEIGHT + 16, at.y + 16])
  const ticks = y.ticks(4)
  const label = y.tickFormat(4, format)
  const grid = ticks.map((tick) => `<path d="M${round(at.x)} ${round(y(tick))}h${round(at.width)}" stroke="${tick === 0 ? '#94a3b8' : '#e2e8f0'}"/>`
    + (isFirst ? `<text x="${at.x - 8}" y="${round(y(tick) + 4)}" text-anchor="end" fill="${FAINT}">${label(tick)}</text>` : ''))
  const layerTicks = x.ticks(Math.min(8, last + 1)).filter((tick) => Number.isInteger(tick) && tick >= 0 && tick <= last)
  const axis = layerTicks.map((tick) => `<text x="${round(x(tick))}" y="${at.y + PANEL_HEIGHT + 32}" text-anchor="middle" fill="${FAINT}">${tick}</text>`)
  const lines = stacks.map((stack, index) => {
    const points = layers.filter((entry) => entry.part === part && entry.stack === stack).map(({ layer, figures }) => ({ layer, value: value(figures) }))
    const path = line<(typeof points)[number]>().defined((point) => point.value !== null).x((point) => round(x(point.layer))).y((point) => round(y(point.value ?? 0)))(points)
    const dots = points.filter((point) => point.value !== null).map((point) => `<circle cx="${round(x(point.layer))}" cy="${round(y(point.value ?? 0))}" r="2"><title>layer ${point.layer}: ${precise(point.value ?? 0)}</title></circle>`)
    return `<path d="${path ?? ''}" fill="none" stroke="${colour}" stroke-width="1.5" stroke-dasharray="${DASHES[index % DASHES.length]}"/><g fill="${colour}">${dots.join('')}</g>`
  })
  return [`<g><text x="${at.x}" y="${at.y + 6}" fill="${FAINT}">${isFirst ? title : ''}</text>`, ...grid, ...axis, ...lines, '</g>'].join('\n')
}

function legendEntry(stack: string, index: number, x: number, y: number): string {
  return `<path d="M${x} ${y - 4}h24" stroke="${INK}" stroke-width="1.5" stroke-dasharray="${DASHES[index % DASHES.length]}"/><text x="${x + 30}" y="${y}">${escape(stack)}</text>`
}

/** What the picture says, for those who cannot see it. */
function describe({ layers, parts, patch, base, target }: Analysis): string {
  const told = parts.map(({ part, figures }) => `${part}: relative drift ${percent(figures.relativeDrift)}, interference ${precise(figures.interference)}, patch over drift ${precise(figures.patchOverDrift)}`)
  return `${new Set(layers.map(({ layer }) => layer)).size} layers. ${told.join('. ')}. Patch ${patch}, base ${base}, target ${target}.`
}

function percent(value: number | null): string {
  return value === null ? 'unknown' : `${(100 * value).toPrecision(3)}%`
}

function precise(value: number | null): string {
  return value === null ? 'unknown' : value.toPrecision(3)
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

function escape(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`)
}
