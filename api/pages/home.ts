import { html } from 'hono/html'
import { layout, type Html } from './layout.ts'

export interface HomeView {
  query: string
  models: { reference: string; description: string; latest: string | null }[]
  patches: { reference: string; description: string; latest: string | null }[]
}

/** What the registry holds, or what a search found. */
export function homePage(view: HomeView): Html {
  return layout({
    title: view.query === '' ? 'Model patches' : `Search: ${view.query}`,
    query: view.query,
    body: html`
      <h1>${view.query === '' ? 'Model patches for evolving models' : html`Results for “${view.query}”`}</h1>
      <h2>Models</h2>
      ${list(view.models.map((model) => html`<tr><td><a href="/models/${model.reference}">${model.reference}</a></td><td>${model.description}</td><td class="number dim">${model.latest ?? ''}</td></tr>`))}
      <h2>Patches</h2>
      ${list(view.patches.map((patch) => html`<tr><td><a href="/patches/${patch.reference}">${patch.reference}</a></td><td>${patch.description}</td><td class="number dim">${patch.latest ?? ''}</td></tr>`))}`,
  })
}

function list(rows: Html[]): Html {
  return rows.length === 0 ? html`<p class="dim">None.</p>` : html`<div class="scroll"><table>${rows}</table></div>`
}
