import { html } from 'hono/html'
import type { Comparison } from '../../patch/comparison.ts'
import { comparisonSection } from './comparisons.ts'
import { formatBytes, formatDate, formatNumber } from './format.ts'
import { layout, type Html } from './layout.ts'
import { shortDigest } from './merged-model.ts'
import { trainingSection, type TrainingView } from './training.ts'

export interface ModelView {
  reference: string
  description: string
  versions: { version: string; state: string; digest: string | null; parent: { reference: string; kind: string } | null; publishedAt: string | null }[]
}

/** A model family and the lineage of its versions. */
export function modelPage(view: ModelView): Html {
  return layout({
    title: view.reference,
    body: html`<h1>${view.reference}</h1><p>${view.description}</p>
      <h2>Versions</h2><div class="scroll"><table>
        <tr><th>Version</th><th>Evolved from</th><th>Published</th><th>Digest</th></tr>
        ${view.versions.map((version) => html`<tr>
          <td><a href="/models/${view.reference}/${version.version}">${version.version}</a> ${version.state === 'published' ? '' : html`<span class="badge warn">${version.state}</span>`}</td>
          <td>${version.parent === null ? html`<span class="dim">first of its line</span>` : html`<a href="/models/${version.parent.reference.replace('@', '/')}">${version.parent.reference}</a> <span class="dim">${version.parent.kind}</span>`}</td>
          <td>${formatDate(version.publishedAt)}</td><td class="digest">${version.digest === null ? '' : shortDigest(version.digest)}</td></tr>`)}
      </table></div>`,
  })
}

export interface ModelVersionView {
  organization: string
  name: string
  version: string
  reference: string
  digest: string | null
  state: string
  parent: { reference: string; kind: string } | null
  facts: { modelType: string | null; layerCount: number | null; vocabularySize: number | null; tieWordEmbeddings: boolean } | null
  files: { path: string; size: number; etag: string }[]
  tensorCount: number
  parameterCount: number
  publishedAt: string | null
  training: TrainingView | null
}

export function modelVersionPage(view: ModelVersionView, comparisons: readonly Comparison[]): Html {
  const facts = view.facts
  return layout({
    title: view.reference,
    body: html`<h1><a href="/models/${view.organization}/${view.name}">${view.organization}/${view.name}</a>@${view.version}</h1>
      <div class="digest">${view.digest ?? view.state}</div>
      <p>${facts?.modelType ?? 'model'}, ${formatNumber(view.parameterCount)} parameters in ${formatNumber(view.tensorCount)} tensors${facts?.layerCount ? html`, ${facts.layerCount} layers` : ''}${facts?.vocabularySize ? html`, vocabulary ${formatNumber(facts.vocabularySize)}` : ''}${facts?.tieWordEmbeddings ? ', tied embeddings' : ''}. Published ${formatDate(view.publishedAt)}.</p>
      ${view.parent === null ? '' : html`<ul class="chain"><li><a href="/models/${view.parent.reference.replace('@', '/')}">${view.parent.reference}</a></li><li class="arrow">→ ${view.parent.kind} →</li><li>${view.reference}</li></ul>`}
      <h2>Port a patch to it</h2><pre>portllm resolve org/patch --target ${view.reference}
portllm get ${view.reference} --patch org/patch --output ./merged</pre>
      ${comparisonSection(comparisons)}
      ${trainingSection(view.training)}
      <h2>Files</h2><div class="scroll"><table>
        ${view.files.map((file) => html`<tr><td><a href="/v1/models/${view.organization}/${view.name}/${view.version}/files/${file.path}">${file.path}</a></td><td class="number">${formatBytes(file.size)}</td><td class="digest">${file.etag.slice(0, 16)}…</td></tr>`)}
      </table></div>`,
  })
}
