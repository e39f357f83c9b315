import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import type { TrainingRecord } from '../../patch/training.ts'
import { calibrateTransfer, KEPT_ENOUGH, LEAST, type Calibration } from '../../patch/transfer.ts'
import { meanScore, portRuns, type Comparison, type Costs, type Findings, type Port, type Prediction } from './findings.ts'
import type { JournalRow } from './journal.ts'
import type { MadeData } from './make-data.ts'
import { predictionPicture, scorePicture } from './pictures.ts'
import type { Plan } from './plan.ts'
import { mean } from './statistics.ts'
import type { Step } from './steps.ts'

export interface ReportInput {
  readonly plan: Plan
  readonly steps: readonly Step[]
  readonly journal: readonly JournalRow[]
  readonly findings: Findings
}

const PICTURES = { 'reproduction-scores.svg': scorePicture, 'reproduction-prediction.svg': predictionPicture } as const
/** Fewer ports than this say nothing about a correlation. */
const LEAST_PORTS = 10

/** Writes report.md and the pictures into a folder; gives the report's text. */
export async function writeReport(folder: string, input: ReportInput): Promise<string> {
  const text = renderReport(input)
  await writeFile(join(folder, 'report.md'), `${text}\n`)
  await writePictures(folder, input.findings)
  return text
}

/** Writes the findings into the repository at `root`. */
export async function publish(root: string, input: ReportInput): Promise<void> {
  const { plan, findings, journal, steps } = input
  const keys = new Set(steps.map(({ key }) => key))
  const results = join(root, 'bench', 'results')
  await mkdir(results, { recursive: true })
  await writeFile(join(results, 'reproduce.json'), `${JSON.stringify({ plan, machine: machine(), complete: findings.done === findings.steps, findings }, null, 2)}\n`)
  await writeFile(join(results, 'reproduce.jsonl'), journal.filter(({ key }) => keys.has(key)).map((row) => `${JSON.stringify(row)}\n`).join(''))
  await writeCalibration(root, plan, findings)
  await writePictures(join(root, 'docs'), findings)
  const path = join(root, 'docs', 'reproduction.md')
  const text = await readFile(path, 'utf8')
  const [begin, end] = ['<!-- findings -->', '<!-- end of findings -->']
  await writeFile(path, `${text.slice(0, text.indexOf(begin) + begin.length)}\n${renderReport(input)}\n${text.slice(text.indexOf(end))}`)
}

/** What resolutions say of transfer: the ports, and the bands that follow from them. */
async function writeCalibration(root: string, plan: Plan, findings: Findings): Promise<void> {
  const ports = portRuns(findings)
  const calibration = { format: 'portllm.transfer/1', source: 'bench/results/reproduce.jsonl', plan: plan.name, ...calibrateTransfer(ports), ports }
  await writeFile(join(root, 'patch', 'transfer-calibration.json'), `${JSON.stringify(calibration, null, 2)}\n`)
}

async function writePictures(folder: string, findings: Findings): Promise<void> {
  for (const [name, picture] of Object.entries(PICTURES)) await writeFile(join(folder, name), picture(findings))
}

export function renderReport({ plan, steps, journal, findings }: ReportInput): string {
  const ofPlan = new Set(steps.map(({ key }) => key))
  const rows = journal.filter(({ key }) => ofPlan.has(key))
  return [
    state(plan, findings, rows),
    '### Accuracy', ...(findings.comparisons.every(({ alone }) => alone === null) ? ['Nothing is scored yet.'] : ['![Accuracy along the chain, task by task](reproduction-scores.svg)', accuracies(findings.comparisons), READING]),
    '### What a port costs', costTable(findings),
    '### Do the analysis figures predict it?', ...prediction(findings),
    '### What resolutions say of transfer', ...bands(calibrateTransfer(portRuns(findings))),
    '### Setting', setting(plan, rows),
  ].join('\n\n')
}

function state(plan: Plan, { done, steps, comparisons }: Findings, rows: readonly JournalRow[]): string {
  const loads = rows.map(({ load }) => load)
  const on = `on ${cpus().length} × ${cpus()[0]?.model ?? 'an unknown processor'}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB of memory`
  const busy = loads.length === 0 ? '' : `; load average before the steps ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}, so that seconds by the clock are to be read with care where it is above ${cpus().length}`
  const isPorted = comparisons.some(({ model, ported }) => model > 0 && ported.length > 0)
  return done < steps
    ? `**Partial: ${done} of ${steps} steps of \`--plan ${plan.name}\` are done.${isPorted ? '' : ' Nothing is ported to an evolved model yet, so nothing of the claim is shown.'}** What is missing below is marked as not measured. Measured ${on}${busy}.`
    : `All ${steps} steps of \`--plan ${plan.name}\`, ${on}${busy}.`
}

const READING = 'Mean over the seeds, ± the standard error that lm-eval gives for the number of questions (it does not shrink with seeds: the questions are the same). “Kept” is (ported − alone) / (fresh − alone): how much of what training afresh would gain here the old patch still gives; it is left out where training afresh gains less than two standard errors.'

function accuracies(comparisons: readonly Comparison[]): string {
  const measured = comparisons.filter(({ alone, ported, fresh }) => alone !== null || ported.length + fresh.length > 0)
  const rest = measured.length < comparisons.length ? `\n\nLeft out: ${comparisons.length - measured.length} of ${comparisons.length} rows, of which nothing is measured yet.` : ''
  return `${table(['task', 'evolutions', 'alone', 'ported', 'trained afresh', 'ported − afresh', 'kept', 'seeds (ported, afresh)'], measured.map(({ task, model, alone, ported, fresh }) => {
    const [left, right] = paired(ported, fresh)
    const difference = model === 0 || left.length === 0 ? '' : signed(mean(left.map((value, index) => value - right[index]!)))
    return [task, String(model), cell(alone === null ? null : meanScore([alone])), cell(meanScore(ported)), model === 0 ? 'the same patch' : cell(meanScore(fresh)), difference, model === 0 ? '' : kept(alone?.value ?? null, meanScore(ported), meanScore(fresh)), model === 0 ? String(ported.length) : `${ported.length}, ${fresh.length}`]
  }))}${rest}`
}

/** Scores of those seeds that have both. */
function paired(ported: Comparison['ported'], fresh: Comparison['fresh']): [number[], number[]] {
  const both = ported.flatMap((score) => {
    const other = fresh.find(({ seed }) => seed === score.seed)
    return other === undefined ? [] : [[score.value, other.value] as const]
  })
  return [both.map(([left]) => left), both.map(([, right]) => right)]
}

function kept(alone: number | null, ported: ReturnType<typeof meanScore>, fresh: ReturnType<typeof meanScore>): string {
  if (alone === null || ported === null || fresh === null || fresh.value - alone < 2 * (fresh.stderr ?? 0)) return ''
  return `${Math.round((100 * (ported.value - alone)) / (fresh.value - alone))}%`
}

function cell(score: ReturnType<typeof meanScore>): string {
  return score === null ? 'not measured' : `${score.value.toFixed(3)}${score.stderr === null ? '' : ` ± ${score.stderr.toFixed(3)}`}`
}

function costTable({ costs: { finetune, port, evolve, analyze } }: Findings): string {
  const row = (name: string, costs: Costs | null) => costs === null ? [name, '0', 'not measured', '', '', ''] : [name, String(costs.runs), seconds(costs.cost.wall_seconds), seconds(costs.cost.device_seconds), `${(costs.cost.peak_memory_bytes / 2 ** 20).toFixed(0)} MiB`, `${number(costs.device_hours)} h`]
  const ratio = (key: 'wall_seconds' | 'device_seconds' | 'peak_memory_bytes') => finetune === null || port === null ? '' : `${(finetune.cost[key] / port.cost[key]).toFixed(1)} ×`
  return [
    table(['medians', 'runs', 'wall', 'processor time, all cores', 'peak resident memory', 'all runs together'], [
      row('training a patch', finetune), row('porting it: `portllm merge`', port),
      ['training over porting', '', ratio('wall_seconds'), ratio('device_seconds'), ratio('peak_memory_bytes'), ''],
      row('measuring it: `portllm analyze`', analyze), row('one evolution, all weights', evolve),
    ]),
    'Each as its user runs it: whole processes, their start and their libraries included. The paper reports 12.21 × less memory at best (28.7 against 350.6 GB), on GPUs and for models fifty times as large; on a model this small, programs and libraries are much of the memory of both.',
  ].join('\n\n')
}

function prediction({ ports, predictions }: Findings): string[] {
  if (ports.length === 0) return ['No port has been both scored and analyzed yet.']
  const warning = ports.length < LEAST_PORTS ? ` These are too few to say anything: fewer than ${LEAST_PORTS}.` : ''
  return [
    `Spearman's rank correlation of each figure with what the port did, over ${ports.length} ports.${warning} Ports of one patch along one chain are not independent, and nothing here is corrected for looking at several figures: read a correlation as a hint.`,
    '![Figures of the analysis beside the change of the score](reproduction-prediction.svg)',
    table(['figure', 'ports', 'with the change of the score', 'with the part of the gain that is kept'], predictions.map(({ figure, ports: count, change, kept: part }: Prediction) => [figure, String(count), correlation(change), correlation(part)])),
    worst(ports),
  ]
}

function worst(ports: readonly Port[]): string {
  const sorted = ports.toSorted((a, b) => a.change - b.change).slice(0, 5)
  const shown = table(['the five ports that lost most', 'seed', 'evolutions', 'change of the score', 'relative drift', 'interference'], sorted.map(({ task, seed, model, change, figures }) => [task, String(seed), String(model), signed(change), number(figures['relative drift']), number(figures.interference)]))
  return shown
}

function bands({ runs, tasks, bands: found }: Calibration): string[] {
  const rule = `A port counts where its patch had gained at least two standard errors on its own base, and has transferred where it kept at least ${KEPT_ENOUGH * 100}% of that; the figure is its read drift, chosen before any port was measured.`
  if (found === null) return [`Nothing yet: ${runs} usable ports of ${tasks} tasks, and it takes at least ${LEAST.runs} of ${LEAST.tasks}. ${rule}`]
  return [
    `From ${runs} usable ports of ${tasks} tasks. ${rule} Ports along one chain are not independent of each other, so the verdicts are surer of themselves than they should be.`,
    table(['read drift', 'ports', 'tasks', 'transferred', 'median kept', 'a patch with that drift is called'], found.map(({ from, to, runs: of, tasks: ofTasks, transferred, medianKept, verdict }) => [`${number(from)} to ${number(to)}`, String(of), String(ofTasks), String(transferred), `${Math.round(100 * medianKept)}%`, verdict])),
  ]
}

function setting(plan: Plan, rows: readonly JournalRow[]): string {
  const data = rows.find(({ kind }) => kind === 'data')?.result as MadeData | undefined
  const training = rows.find(({ kind }) => kind === 'finetune')?.result as TrainingRecord | undefined
  const parts = [`Fine-tuning: \`${JSON.stringify(plan.finetune)}\`. Evolution, all weights: \`${JSON.stringify(plan.evolve)}\`. Seeds: ${plan.seeds.join(', ')}.`]
  if (data !== undefined) {
    parts.push(table(['task', 'what it asks', 'training and test examples', 'an example'], Object.entries(data.tasks).map(([name, { about, sizes, prompt, choices, example }]) => [name, about, `${sizes.train}, ${sizes.test}`, `${prompt.replace('{{text}}', example.text).replaceAll('\n', ' ⏎ ').replaceAll('|', '\\|')} **${choices[example.label]}**`])))
    parts.push(table(['evolution', 'text', 'characters'], plan.evolutions.map(({ text }, index) => [String(index + 1), `${text}: ${data.texts[text]?.about ?? ''}`, String(data.texts[text]?.characters ?? '')])))
    if (data.packages.length > 0) parts.push(table(['package', 'version', 'licence', 'used for'], data.packages.map(({ registry, name, version, licence, used_for }) => [`${registry}: ${name}`, version, licence, used_for])))
  }
  if (training !== undefined) parts.push(`Device: ${training.device}. Versions: ${Object.entries(training.versions).map(([name, version]) => `${name} ${version}`).join(', ')}.`)
  return parts.join('\n\n')
}

function machine() {
  return { processor: cpus()[0]?.model ?? 'unknown', processors: cpus().length, memoryBytes: totalmem() }
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}

function seconds(value: number): string {
  return value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(0)} s`
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`
}

function correlation(value: number | null): string {
  return value === null ? 'not defined' : `${value < 0 ? '−' : ''}${Math.abs(value).toFixed(2)}`
}

function number(value: number | null): string {
  return value === null ? '' : String(Number(value.toPrecision(3)))
}
