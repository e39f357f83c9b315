import { html } from 'hono/html'
import { formatBytes, formatNumber } from './format.ts'
import type { Html } from './layout.ts'

export interface TrainingView {
  spec: { task: string; base: string } | { config: string; parent: string }
  record: {
    data: { source: string; digest: string; examples: number }
    options: Readonly<Record<string, unknown>>
    curve: readonly { step: number; loss: number }[]
    steps: number
    peak_memory_bytes: number
    wall_seconds: number
    device_seconds: number
    device: string
  } | null
  job: { id: string; state: string; failure: { message: string } | null } | null
}

/** How a job of the registry made a version; nothing for what was uploaded. */
export function trainingSection(training: TrainingView | null): Html {
  if (training === null) return html``
  const { spec, record, job } = training
  const what = 'task' in spec ? html`Fine-tuned on <code>${spec.base}</code> for the task <code>${spec.task}</code>.` : html`Trained further from <code>${spec.parent}</code>.`
  return html`<h2>Training</h2><p>${what}</p>${record === null ? state(job) : figures(record)}`
}

function state(job: TrainingView['job']): Html {
  if (job?.failure) return html`<p class="bad">${job.failure.message}</p>`
  return html`<p class="dim">${job === null ? 'It has no job.' : `Its job is ${job.state}.`}</p>`
}

function figures({ data, options, curve, steps, peak_memory_bytes, wall_seconds, device_seconds, device }: NonNullable<TrainingView['record']>): Html {
  const [first, last] = [curve[0], curve.at(-1)]
  return html`<div class="scroll"><table>
    <tr><th>Data</th><td>${data.source}, ${formatNumber(data.examples)} examples</td></tr>
    <tr><th>Steps</th><td>${formatNumber(steps)}${first === undefined || last === undefined ? '' : `, loss ${first.loss.toPrecision(3)} to ${last.loss.toPrecision(3)}`}</td></tr>
    <tr><th>Time</th><td>${(wall_seconds / 3600).toPrecision(3)} h, ${(device_seconds / 3600).toPrecision(3)} device hours (${device})</td></tr>
    <tr><th>Peak memory</th><td>${formatBytes(peak_memory_bytes)}</td></tr>
    <tr><th>Options</th><td><code>${Object.entries(options).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(' ')}</code></td></tr>
  </table></div>`
}
