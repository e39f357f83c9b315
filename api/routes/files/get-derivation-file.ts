import { z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { registerFileOperations } from './file-operations.ts'

export function registerGetDerivationFile(app: App): void {
  registerFileOperations(app, {
    path: '/v1/derivations/{id}',
    params: z.object({ id: z.string() }),
    name: 'DerivationFile',
    tag: 'derivations',
    what: 'a merged model',
    subject: (c) => ({ kind: 'derivation', id: c.req.param('id')! }),
    // Where its bytes are to be computed, and cannot be.
    errors: [503],
  })
}
