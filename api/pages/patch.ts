import { html, raw } from 'hono/html'
import { marked } from 'marked'
import sanitizeHtml from 'sanitize-html'
import type { Comparison } from '../../patch/comparison.ts'
import { comparisonSection } from './comparisons.ts'
import { formatBytes, formatDate } from './format.ts'
import { layout, type Html } from './layout.ts'
import { shortDigest } from './merged-model.ts'
import { trainingSection, type TrainingView } from './training.ts'

export interface PatchView {
  reference: string
  description: string
  readme: string | null
  distTags: Record<string, string>
  versions: {
    version: string
    state: string
    base: { reference: string }
    publishedAt: string | null
    yanked: { reason: string } | null
    deprecated: string | null
  }[]
}

/** A patch as a package: how to use it, its versions, its README. */
export function patchPage(view: PatchView, comparisons: readonly Comparison[]): Html {
  return layout({
    title: view.reference,
    body: html`<h1>${view.reference}</h1><p>${view.description}</p>
      <pre>portllm get org/model@version --patch ${view.reference}${view.distTags['latest'] ? `@^${view.distTags['latest']}` : ''} --output ./merged</pre>
      <h2>Versions</h2><div class="scroll"><table>
        <tr><th>Version</th><th>Trained on</th><th>Published</th><th></th></tr>
        ${view.versions.map((version) => html`<tr>
          <td><a href="/patches/${view.reference}/${version.version}">${version.version}</a> ${Object.entries(view.distTags).filter(([, tagged]) => tagged === version.version).map(([tag]) => html`<span class="badge good">${tag}</span> `)}</td>
          <td><a href="/models/${version.base.reference.replace('@', '/')}">${version.base.reference}</a></td>
          <td>${formatDate(version.publishedAt)}</td><td>${marks(version)}</td></tr>`)}
      </table></div>
      ${comparisonSection(comparisons)}
      ${view.readme === null ? '' : html`<h2>README</h2><div class="readme">${raw(renderReadme(view.readme))}</div>`}`,
  })
}

export interface PatchVersionView {
  organization: string
  name: string
  version: string
  reference: string
  digest: string | null
  state: string
  base: { reference: string }
  files: { path: string; size: number; etag: string }[]
  yanked: { reason: string } | null
  deprecated: string | null
  rejection: { message: string }[] | null
  publishedAt: string | null
  training: TrainingView | null
}

/** One version of a patch: what it was trained on, how, and its files. */
export function patchVersionPage(view: PatchVersionView): Html {
  return layout({
    title: view.reference,
    body: html`<h1><a href="/patches/${view.organization}/${view.name}">${view.organization}/${view.name}</a>@${view.version} ${marks(view)}</h1>
      <div class="digest">${view.digest === null ? view.state : shortDigest(view.digest)}</div>
      <p>Trained on <a href="/models/${view.base.reference.replace('@', '/')}">${view.base.reference}</a>.${view.publishedAt === null ? '' : html` Published ${formatDate(view.publishedAt)}.`}</p>
      ${(view.rejection ?? []).map(({ message }) => html`<p class="bad">${message}</p>`)}
      ${trainingSection(view.training)}
      <h2>Files</h2><div class="scroll"><table>
        ${view.files.map((file) => html`<tr><td><a href="/v1/patches/${view.organization}/${view.name}/${view.version}/files/${file.path}">${file.path}</a></td><td class="number">${formatBytes(file.size)}</td><td class="digest">${file.etag.slice(0, 16)}…</td></tr>`)}
      </table></div>`,
  })
}

function marks(version: Pick<PatchVersionView, 'yanked' | 'deprecated' | 'state'>): Html {
  if (version.yanked !== null) return html`<span class="bad">yanked: ${version.yanked.reason}</span>`
  if (version.deprecated !== null) return html`<span class="warn">deprecated: ${version.deprecated}</span>`
  return version.state === 'published' ? html`` : html`<span class="badge warn">${version.state}</span>`
}

/** A publisher's markdown, without its YAML front matter, as HTML that cannot run anything. */
export function renderReadme(markdown: string): string {
  const body = markdown.replace(/^---\r?\n[\s\S]*?\r?\n---\r?\n/, '')
  return sanitizeHtml(marked.parse(body, { async: false }), {
    allowedTags: [...sanitizeHtml.defaults.allowedTags, 'img'],
    allowedSchemes: ['https', 'mailto'],
    transformTags: { a: sanitizeHtml.simpleTransform('a', { rel: 'nofollow noopener' }) },
  })
}
