import { html, raw } from 'hono/html'
import { marked } from 'marked'
import sanitizeHtml from 'sanitize-html'
import { formatDate } from './format.ts'
import { layout, type Html } from './layout.ts'

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
export function patchPage(view: PatchView): Html {
  return layout({
    title: view.reference,
    body: html`<h1>${view.reference}</h1><p>${view.description}</p>
      <pre>portllm get org/model@version --patch ${view.reference}${view.distTags['latest'] ? `@^${view.distTags['latest']}` : ''} --output ./merged</pre>
      <h2>Versions</h2><div class="scroll"><table>
        <tr><th>Version</th><th>Trained on</th><th>Published</th><th></th></tr>
        ${view.versions.map((version) => html`<tr>
          <td>${version.version} ${Object.entries(view.distTags).filter(([, tagged]) => tagged === version.version).map(([tag]) => html`<span class="badge good">${tag}</span> `)}</td>
          <td><a href="/models/${version.base.reference.replace('@', '/')}">${version.base.reference}</a></td>
          <td>${formatDate(version.publishedAt)}</td><td>${marks(version)}</td></tr>`)}
      </table></div>
      ${view.readme === null ? '' : html`<h2>README</h2><div class="readme">${raw(renderReadme(view.readme))}</div>`}`,
  })
}

function marks(version: PatchView['versions'][number]): Html {
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
