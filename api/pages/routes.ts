import type { Context } from 'hono'
import { html } from 'hono/html'
import type { App, AppEnv } from '../app.ts'
import { ApiError } from '../errors.ts'
import { findTransfers } from '../services/analyses/find-transfers.ts'
import { describeDerivation } from '../services/derivations/describe.ts'
import { compareOnModelVersion, comparePatch } from '../services/evaluations/compare.ts'
import { describeModel, describeModelVersion } from '../services/models/describe.ts'
import { listModels } from '../services/models/list.ts'
import { describePatch, describePatchVersion } from '../services/patches/describe.ts'
import { listPatches } from '../services/patches/list.ts'
import { homePage } from './home.ts'
import { layout, type Html } from './layout.ts'
import { mergedModelPage } from './merged-model.ts'
import { modelPage, modelVersionPage } from './model.ts'
import { patchPage, patchVersionPage } from './patch.ts'

const LIST_LIMIT = 50
/** Scripts and styles of the pages stand in them; nothing is loaded from elsewhere but a README's pictures. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src https: data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

/** What people look at in a browser: what an anonymous reader, or the bearer of the token, may see. */
export function registerPages(app: App): void {
  app.get('/', async (c) => {
    const { ctx } = c.var
    const query = (c.req.query('q') ?? '').slice(0, 200)
    const input = { q: query === '' ? undefined : query, limit: LIST_LIMIT }
    const [models, patches] = [await listModels({ ctx, input }), await listPatches({ ctx, input })]
    return show(c, homePage({
      query,
      models: models.items.map((model) => ({ reference: `${model.organization}/${model.name}`, description: model.description, latest: model.latestVersion })),
      patches: patches.items.map((patch) => ({ reference: `${patch.organization}/${patch.name}`, description: patch.description, latest: patch.latestVersion })),
    }))
  })
  app.get('/models/:organization/:name', (c) => found(c, async () => {
    const model = await describeModel({ ctx: c.var.ctx, input: c.req.param() })
    return modelPage({ ...model, reference: `${model.organization}/${model.name}` })
  }))
  app.get('/models/:organization/:name/:version', (c) => found(c, async () => {
    const about = { ctx: c.var.ctx, input: c.req.param() }
    return modelVersionPage(await describeModelVersion(about), await compareOnModelVersion(about))
  }))
  app.get('/patches/:organization/:name', (c) => found(c, async () => {
    const about = { ctx: c.var.ctx, input: c.req.param() }
    const patch = await describePatch(about)
    return patchPage({ ...patch, reference: `${patch.organization}/${patch.name}` }, await comparePatch(about))
  }))
  app.get('/patches/:organization/:name/:version', (c) => found(c, async () => patchVersionPage(await describePatchVersion({ ctx: c.var.ctx, input: c.req.param() }))))
  app.get('/derivations/:id{[0-9a-f]{64}}', (c) => found(c, async () => {
    const { ctx } = c.var
    const merged = await describeDerivation({ ctx, input: c.req.param() })
    return mergedModelPage(merged, await findTransfers({ ctx, derivationId: merged.id }))
  }))
}

async function found(c: Context<AppEnv>, page: () => Promise<Html>): Promise<Response> {
  try {
    return await show(c, page())
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'not_found') throw error
    return show(c, layout({ title: 'Not found', body: html`<h1>Not found</h1><p>${error.message}.</p>` }), 404)
  }
}

async function show(c: Context<AppEnv>, page: Html | Promise<Html>, status: 200 | 404 = 200): Promise<Response> {
  c.header('Content-Security-Policy', POLICY)
  c.header('X-Content-Type-Options', 'nosniff')
  return c.html(await page, status)
}
