import { analysisPicture } from '../patch/analysis-picture.ts'
import type { Analysis, AnalysisFigures } from '../patch/analysis.ts'
import { FIGURE_COLUMNS } from './analysis-table.ts'

export interface AnalysisNames {
  readonly patch: string
  readonly base: string
  readonly target: string
}

/** What no figure tells, and every report says. */
export const CAVEAT = 'These are measurements of weights, not a verdict: no threshold on any of them has been validated. Whether the ported patch works is found out by evaluating the merged model.'

const STYLE = `
:root { color-scheme: light }
body { font: 15px/1.5 ui-sans-serif, system-ui, sans-serif; color: #0f172a; background: #fff; max-width: 76rem; margin: 2rem auto; padding: 0 1.5rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #e2e8f0; white-space: nowrap }
th:first-child, td:first-child, .left { text-align: left }
th { color: #475569; font-weight: 600 } dt { font-weight: 600 } dd { margin: 0 0 .35rem; color: #475569 } code { font-size: 12px }
.scroll { overflow-x: auto } svg { max-width: 100%; height: auto } .caveat { color: #475569 }`

/** The analysis as one HTML page that needs nothing else: picture, figures, and what they mean. */
export function analysisReport(analysis: Analysis, names: AnalysisNames): string {
  const { measured, parts, whole, tensors, unmeasured } = analysis
  const versions = [['Patch', names.patch, analysis.patch], ['Base', names.base, analysis.base], ['Target', names.target, analysis.target]] as const
  const head = FIGURE_COLUMNS.map(({ heading }) => heading)
  const row = (cells: readonly string[], figures: AnalysisFigures) => [...cells, ...FIGURE_COLUMNS.map(({ text }) => text(figures) ?? '–')]
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(names.patch)} on ${escape(names.target)}</title>
<style>${STYLE}
</style>
<h1>${escape(names.patch)} on ${escape(names.target)}</h1>
${table(['', 'version', 'digest'], versions.map((cells) => [...cells]), true)}
<p class="caveat">${escape(CAVEAT)}</p>
<h2>Layer by layer</h2>
${analysisPicture(analysis)}
<h2>Attention and MLP</h2>
${table(['part', 'tensors', ...head], [...parts.map((part) => row([part.part, String(part.tensors)], part.figures)), row(['whole', String(tensors.length)], whole)])}
<h2>What the figures are</h2>
<p>W is the base, W′ the target, D = W′ − W, and P what the patch adds.</p>
<dl>${FIGURE_COLUMNS.map(({ heading, meaning }) => `<dt>${escape(heading)}</dt><dd>${escape(meaning)}</dd>`).join('')}</dl>
<h2>Tensor by tensor</h2>
${table(['tensor', 'rank', ...head], tensors.map((tensor) => row([tensor.name, String(tensor.rank)], tensor.figures)))}
${unmeasured.length === 0 ? '' : `<h2>Not measured</h2>\n${table(['tensor', 'why'], unmeasured.map(({ name, reason }) => [name, reason]), true)}`}
<p class="caveat">Measured by ${escape(measured.by)} at ${escape(measured.at)} in ${measured.seconds.toFixed(1)} s, with ${escape(`${measured.engine.name} ${measured.engine.version} (${measured.engine.path})`)}.</p>
</html>
`
}

function table(head: readonly string[], rows: readonly (readonly string[])[], isText = false): string {
  const cells = (of: readonly string[], tag: 'th' | 'td') => of.map((cell) => `<${tag}${isText ? ' class="left"' : ''}>${escape(cell)}</${tag}>`).join('')
  return `<div class="scroll"><table><thead><tr>${cells(head, 'th')}</tr></thead><tbody>\n${rows.map((row) => `<tr>${cells(row, 'td')}</tr>`).join('\n')}\n</tbody></table></div>`
}

function escape(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`)
}
