import { html, raw } from 'hono/html'
import { formatBytes, formatDate, formatNumber } from './format.ts'
import { layout, type Html } from './layout.ts'

export interface MergedModelView {
  id: string
  state: 'queued' | 'ready' | 'failed'
  rules: string[]
  options: { absolute?: string; tied?: string }
  target: { reference: string; digest: string }
  patches: { reference: string; digest: string; weight: number }[]
  files: { path: string; size: number; etag: string; changed: boolean }[]
  receipt: {
    engine: { name: string; version: string; path: string }
    tensors: { name: string; digest: string; patchNorm: number; realisedNorm: number; residualNorm: number }[]
    seconds: number
  } | null
  storage: 'computed' | 'materialised'
  storageReason: string
  storedBytes: number
  job: { id: string; state: string; failure: { message: string } | null } | null
  createdAt: string
  readyAt: string | null
}

/** The page of a merged model: what it is made of, its files, and the receipt of the merge. `transfers`: what is known of each patch there. */
export function mergedModelPage(view: MergedModelView, transfers: readonly ({ says: string } | null)[]): Html {
  return layout({
    title: `${view.target.reference} + ${view.patches.map((patch) => patch.reference).join(' + ')}`,
    body: html`
      <h1>Merged model <span class="badge ${view.state === 'failed' ? 'bad' : 'good'}">${view.state}</span></h1>
      <div class="digest">${view.id}</div>
      ${recipe(view)}
      ${transfer(view, transfers)}
      ${view.state === 'ready' ? html`${fetching(view)}${filesTable(view)}${storage(view)}${receipt(view)}` : jobState(view)}`,
  })
}

function recipe(view: MergedModelView): Html {
  return html`<h2>Derivation</h2>
    <ul class="chain">
      <li><a href="/models/${view.target.reference.replace('@', '/')}">${view.target.reference}</a><div class="digest">${shortDigest(view.target.digest)}</div></li>
      ${view.patches.map((patch) => html`<li class="arrow">+</li>
        <li>${patch.weight === 1 ? '' : html`${patch.weight} × `}<a href="/patches/${patch.reference.split('@')[0]}">${patch.reference}</a><div class="digest">${shortDigest(patch.digest)}</div></li>`)}
      <li class="arrow">under</li><li>${[...view.rules, ...Object.entries(view.options).map(([name, value]) => `${name}: ${value}`)].map((text) => html`<code>${text}</code> `)}</li>
    </ul>`
}

function transfer({ patches }: MergedModelView, transfers: readonly ({ says: string } | null)[]): Html {
  const known = patches.flatMap(({ reference }, index) => (transfers[index] ? [{ reference, says: transfers[index].says }] : []))
  if (known.length === 0) return html``
  return html`<h2>Does it transfer?</h2>${known.map(({ reference, says }) => html`<p><code>${reference}</code>: ${says}.</p>`)}`
}

function fetching(view: MergedModelView): Html {
  const patches = view.patches.map((patch) => `--patch ${patch.reference}${patch.weight === 1 ? '' : `:${patch.weight}`}`).join(' ')
  return html`<h2>Get it</h2><pre>portllm get ${view.target.reference} ${patches} --output ./merged</pre>`
}

function filesTable(view: MergedModelView): Html {
  return html`<h2>Files</h2><div class="scroll"><table>
    <tr><th>Path</th><th class="number">Size</th><th></th><th>Identity</th></tr>
    ${view.files.map((file) => html`<tr>
      <td><a href="/v1/derivations/${view.id}/files/${file.path}">${file.path}</a></td>
      <td class="number">${formatBytes(file.size)}</td>
      <td>${file.changed ? html`<span class="badge good">merged</span>` : html`<span class="dim">the target's own</span>`}</td>
      <td class="digest">${file.etag.slice(0, 16)}…</td></tr>`)}
  </table></div>`
}

function storage(view: MergedModelView): Html {
  const total = view.files.reduce((sum, file) => sum + file.size, 0)
  const isMaterialising = view.storage === 'computed' && (view.job?.state === 'queued' || view.job?.state === 'running')
  return html`<h2>Storage</h2>
    <p><span class="badge">${view.storage}</span> ${formatBytes(view.storedBytes)} of ${formatBytes(total)} are kept for it alone:
    ${view.storage === 'computed' ? 'its headers. The changed tensors are computed whenever they are fetched, to the same bytes.' : 'its headers and its changed tensors.'}</p>
    <p class="dim">${view.storageReason}</p>
    ${isMaterialising ? html`<p>A job is materialising it.</p>` : ''}
    ${view.job?.failure && !isMaterialising && view.storage === 'computed' ? html`<p class="bad">${view.job.failure.message}</p>` : ''}`
}

function receipt(view: MergedModelView): Html {
  if (view.receipt === null) return html``
  const { engine, tensors, seconds } = view.receipt
  return html`<h2>Receipt</h2>
    <p>${formatNumber(tensors.length)} tensors changed by ${engine.name} ${engine.version} (${engine.path}) in ${seconds.toFixed(2)} s, ready ${formatDate(view.readyAt)}.</p>
    <p class="dim">Realised delta: the part of the patch's norm that is left after rounding to the model's dtype.</p>
    <div class="scroll"><table>
      <tr><th>Tensor</th><th class="number">‖P‖</th><th class="number">Realised</th><th>Digest</th></tr>
      ${tensors.map((tensor) => html`<tr><td><code>${tensor.name}</code></td><td class="number">${tensor.patchNorm.toPrecision(4)}</td>
        <td class="number">${tensor.patchNorm === 0 ? '' : (tensor.realisedNorm / tensor.patchNorm).toFixed(4)}</td><td class="digest">${shortDigest(tensor.digest)}</td></tr>`)}
    </table></div>`
}

function jobState(view: MergedModelView): Html {
  if (view.job === null) return html`<p>Nobody has asked for this merge yet.</p>`
  if (view.job.failure !== null) return html`<h2>Job</h2><p class="bad">${view.job.failure.message}</p><p>Ask for the model again to start another job.</p>`
  const events = `/v1/jobs/${view.job.id}/events`
  return html`<h2>Job</h2><progress id="progress"></progress><p id="phase" class="dim" aria-live="polite">${view.job.state}</p>
    <script type="module">
      const source = new EventSource(${raw(JSON.stringify(events))})
      source.addEventListener('job', (event) => {
        const job = JSON.parse(event.data)
        if (job.progress) { const bar = document.getElementById('progress'); bar.max = job.progress.total || 1; bar.value = job.progress.done }
        document.getElementById('phase').textContent = job.progress?.phase ?? job.state
        if (['succeeded', 'failed', 'cancelled'].includes(job.state)) { source.close(); location.reload() }
      })
    </script>`
}

export function shortDigest(digest: string): string {
  return `${digest.slice(0, 23)}…`
}
