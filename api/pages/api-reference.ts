import { Scalar } from '@scalar/hono-api-reference'
import type { App } from '../app.ts'
import { openapiDocument } from '../openapi-document.ts'

/** The browser loads the viewer from here; where it cannot, `/openapi.json` still answers. */
const VIEWER = 'https://cdn.jsdelivr.net/npm/@scalar/api-reference@1.72.1'

/** `/openapi.json`, and `/docs` that shows it. */
export function registerApiReference(app: App): void {
  let document: Record<string, unknown> | undefined
  app.get('/openapi.json', (c) => c.json((document ??= openapiDocument(app))))
  app.get('/docs', Scalar({ url: '/openapi.json', pageTitle: 'PortLLM API', cdn: VIEWER }))
}
