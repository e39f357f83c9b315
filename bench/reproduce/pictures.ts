import { extent } from './statistics.ts'
import { scaleLinear, type ScaleLinear } from 'd3-scale'
import { line } from 'd3-shape'
import { meanScore, type Comparison, type FigureName, type Findings, type Port } from './findings.ts'

const INK = '#0f172a'
const FAINT = '#64748b'
const WIDTH = 760
const LEFT = 56
const RIGHT = 16
const GAP = 48
const PANEL_WIDTH = (WIDTH - LEFT - RIGHT - GAP) / 2
const PANEL_HEIGHT = 150
const ROW_HEIGHT = 220
const HEAD = 56

const SERIES = [
  { title: 'evolved model alone', colour: '#64748b', scores: ({ alone }: Comparison) => (alone === null ? [] : [alone]) },
  { title: 'with the old patch, ported', colour: '#1d4ed8', scores: ({ ported }: Comparison) => ported },
  { title: 'with a patch trained afresh', colour: '#b45309', scores: ({ fresh }: Comparison) => fresh },
] as const
const TASK_COLOURS = ['#1d4ed8', '#b45309', '#15803d', '#7e22ce', '#be123c', '#0f766e']

type Scale = ScaleLinear<number, number>

/** Accuracy over the evolutions, a panel for each task: means with one standard error, and a dot for each seed. */
export function scorePicture({ comparisons }: Findings): string {
  const tasks = [...new Set(comparisons.map(({ task }) => task))]
  const last = Math.max(1, ...comparisons.map(({ model }) => model))
  const panels = tasks.map((task, index) => {
    const own = comparisons.filter((comparison) => comparison.task === task)
    const { x: left, y: top } = place(index)
    const values = own.flatMap((comparison) => SERIES.flatMap(({ scores }) => scores(comparison).flatMap(({ value, stderr }) => [value - (stderr ?? 0), value + (stderr ?? 0)])))
    const x = scaleLinear().domain([-0.2, last + 0.2]).range([left, left + PANEL_WIDTH])
    const y = scaleLinear().domain(extent(values, [0, 1])).nice(4).range([top + PANEL_HEIGHT, top])
    return [
      `<text x="${left}" y="${top - 10}" font-size="13" font-weight="600">${escape(task)}</text>`,
      ...axes(x, y, left, Array.from({ length: last + 1 }, (_, model) => model), '.2f'),
      ...SERIES.map((series, offset) => scoreLine(own, series, x, y, (offset - 1) * 5)),
    ].join('\n')
  })
  const legend = SERIES.map(({ title, colour }, index) => `<path d="M${LEFT + index * 220} 20h20" stroke="${colour}" stroke-width="2"/><text x="${LEFT + 26 + index * 220}" y="24">${title}</text>`)
  const description = comparisons.map((comparison) => `${comparison.task} after ${comparison.model} evolutions: ${SERIES.map(({ title, scores }) => `${title} ${meanScore(scores(comparison))?.value.toFixed(3) ?? 'not measured'}`).join(', ')}`).join('. ')
  return document('Accuracy along the chain of evolutions', description, tasks.length, [...legend, ...panels, `<text x="${WIDTH - RIGHT}" y="${height(tasks.length) - 6}" text-anchor="end" fill="${FAINT}">evolutions since the pretrained model</text>`])
}

function scoreLine(comparisons: readonly Comparison[], { colour, scores }: (typeof SERIES)[number], x: Scale, y: Scale, shift: number): string {
  const points = comparisons.flatMap((comparison) => {
    const found = meanScore(scores(comparison))
    return found === null ? [] : [{ at: x(comparison.model) + shift, ...found, seeds: scores(comparison) }]
  })
  const path = line<(typeof points)[number]>().x(({ at }) => round(at)).y(({ value }) => round(y(value)))(points) ?? ''
  const marks = points.map(({ at, value, stderr, seeds }) => [
    stderr === null ? '' : `<path d="M${round(at)} ${round(y(value - stderr))}V${round(y(value + stderr))}" stroke="${colour}" stroke-opacity="0.6"/>`,
    `<circle cx="${round(at)}" cy="${round(y(value))}" r="3" fill="${colour}"><title>${value.toFixed(3)}</title></circle>`,
    ...(seeds.length < 2 ? [] : seeds.map((seed) => `<circle cx="${round(at)}" cy="${round(y(seed.value))}" r="1.5" fill="#ffffff" stroke="${colour}"/>`)),
  ].join(''))
  return `<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>${marks.join('')}`
}

const PREDICTORS: readonly FigureName[] = ['relative drift', 'interference']

/** What the analysis said of each port beside what became of its score. */
export function predictionPicture({ ports }: Findings): string {
  const tasks = [...new Set(ports.map(({ task }) => task))]
  const colour = ({ task }: Port) => TASK_COLOURS[tasks.indexOf(task) % TASK_COLOURS.length]!
  const panels = PREDICTORS.map((figure, index) => {
    const { x: left, y: top } = place(index)
    const shown = ports.flatMap((port) => (port.figures[figure] === null ? [] : [{ port, value: port.figures[figure] }]))
    const x = scaleLinear().domain(extent(shown.map(({ value }) => value), [0, 1])).nice(4).range([left, left + PANEL_WIDTH])
    const y = scaleLinear().domain(extent([0, ...ports.map(({ change }) => change)], [-0.1, 0.1])).nice(4).range([top + PANEL_HEIGHT, top])
    return [
      `<text x="${left}" y="${top - 10}" font-size="13" font-weight="600">${figure}, and the change of the score</text>`,
      ...axes(x, y, left, x.ticks(4), '.2f'),
      ...shown.map(({ port, value }) => `<circle cx="${round(x(value))}" cy="${round(y(port.change))}" r="3.5" fill="${colour(port)}" fill-opacity="0.7"><title>${escape(port.task)}, seed ${port.seed}, evolution ${port.model}</title></circle>`),
    ].join('\n')
  })
  const legend = tasks.map((task, index) => `<circle cx="${LEFT + 4 + index * 110}" cy="20" r="4" fill="${TASK_COLOURS[index % TASK_COLOURS.length]}"/><text x="${LEFT + 14 + index * 110}" y="24">${escape(task)}</text>`)
  return document('Figures of the analysis and the change of the score', `${ports.length} ports.`, PREDICTORS.length, [...legend, ...panels])
}

function place(index: number): { x: number; y: number } {
  return { x: LEFT + (index % 2) * (PANEL_WIDTH + GAP), y: HEAD + Math.floor(index / 2) * ROW_HEIGHT }
}

function axes(x: Scale, y: Scale, left: number, xTicks: readonly number[], format: string): string[] {
  const [bottom] = y.range() as [number, number]
  const label = y.tickFormat(4, format)
  return [
    ...y.ticks(4).map((tick) => `<path d="M${round(left)} ${round(y(tick))}h${round(PANEL_WIDTH)}" stroke="${tick === 0 ? '#94a3b8' : '#e2e8f0'}"/><text x="${round(left - 6)}" y="${round(y(tick) + 4)}" text-anchor="end" fill="${FAINT}">${label(tick)}</text>`),
    ...xTicks.map((tick) => `<text x="${round(x(tick))}" y="${round(bottom + 16)}" text-anchor="middle" fill="${FAINT}">${tick}</text>`),
  ]
}

function height(panels: number): number {
  return HEAD + Math.max(1, Math.ceil(panels / 2)) * ROW_HEIGHT
}

function document(title: string, description: string, panels: number, body: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height(panels)}" width="${WIDTH}" height="${height(panels)}" role="img" aria-labelledby="t d" font-family="ui-sans-serif, system-ui, sans-serif" font-size="11" fill="${INK}">`,
    `<title id="t">${title}</title>`, `<desc id="d">${escape(description)}</desc>`, `<rect width="${WIDTH}" height="${height(panels)}" fill="#ffffff"/>`,
    ...body, '</svg>\n',
  ].join('\n')
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

function escape(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`)
}
