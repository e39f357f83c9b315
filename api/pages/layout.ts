import { html, raw } from 'hono/html'
import type { HtmlEscapedString } from 'hono/utils/html'

export type Html = HtmlEscapedString | Promise<HtmlEscapedString>

const STYLE = `
:root { color-scheme: light dark; --ink: #0f172a; --dim: #64748b; --line: #e2e8f0; --ground: #fff; --panel: #f8fafc; --accent: #047857; --warn: #b45309; --bad: #b91c1c }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --dim: #94a3b8; --line: #334155; --ground: #0f172a; --panel: #1e293b; --accent: #34d399; --warn: #fbbf24; --bad: #f87171 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.55 ui-sans-serif, system-ui, sans-serif }
header, main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem }
header { display: flex; gap: 1.25rem; align-items: center; border-bottom: 1px solid var(--line) }
header a { color: inherit; text-decoration: none } header .brand { font-weight: 700 }
header form { margin-left: auto }
input, button { font: inherit; padding: .3rem .6rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--panel); color: inherit }
h1 { font-size: 1.5rem; margin: .8rem 0 .2rem; overflow-wrap: anywhere } h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem }
a { color: var(--accent) } .dim { color: var(--dim) } .bad { color: var(--bad) } .warn { color: var(--warn) } .good { color: var(--accent) }
table { width: 100%; border-collapse: collapse } th { text-align: left; font-weight: 600; color: var(--dim) }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
code, pre { font: 13px/1.5 ui-monospace, monospace } pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; overflow-x: auto }
.digest { font: 12px ui-monospace, monospace; color: var(--dim); overflow-wrap: anywhere }
.badge { display: inline-block; padding: 0 .5rem; border: 1px solid currentColor; border-radius: 1rem; font-size: 12px }
.chain { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; padding: 0; list-style: none }
.chain li { border: 1px solid var(--line); background: var(--panel); border-radius: .5rem; padding: .3rem .7rem } .chain li.arrow { border: 0; background: none; padding: 0; color: var(--dim) }
progress { width: 100%; accent-color: var(--accent) } .scroll { overflow-x: auto } .readme img { max-width: 100% }
`

/** One whole page. `title` and `body` are escaped by construction: only `html` templates compose here. */
export function layout(page: { title: string; query?: string; body: Html }): Html {
  return html`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>${page.title} · PortLLM</title>
    <style>${raw(STYLE)}</style>
  </head>
  <body>
    <header>
      <a class="brand" href="/">PortLLM</a>
      <a href="/docs">API</a>
      <form action="/" role="search"><input type="search" name="q" value="${page.query ?? ''}" placeholder="Search models and patches" aria-label="Search"></form>
    </header>
    <main>${page.body}</main>
  </body>
</html>`
}
