import type { App } from './app.ts'
import { VERSION } from './version.ts'

/** What openapi.yaml and `/openapi.json` hold: made from the routes, so it cannot say anything else than they do. */
export function openapiDocument(app: App): Record<string, unknown> {
  app.openAPIRegistry.registerComponent('securitySchemes', 'token', { type: 'http', scheme: 'bearer', description: 'A token of this registry, `plm_…`: see `POST /v1/tokens`.' })
  app.openAPIRegistry.registerComponent('securitySchemes', 'attempt', { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The token that came with the claim of a job.' })
  const document = app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'PortLLM',
      version: VERSION,
      description: 'A registry for model patches: published like packages, resolved against evolving models, merged on demand.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    servers: [{ url: 'http://127.0.0.1:8080', description: 'The embedded default.' }],
  })
  return JSON.parse(JSON.stringify(document)) as Record<string, unknown>
}
