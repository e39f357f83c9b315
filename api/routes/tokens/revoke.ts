import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { revokeToken } from '../../services/tokens/revoke.ts'
import { errorResponses } from '../error-responses.ts'
import { tokenRequired } from '../security.ts'

const route = createRoute({
  method: 'delete',
  path: '/v1/tokens/{id}',
  operationId: 'revokeToken',
  tags: ['accounts'],
  summary: 'Revoke one of your tokens, with effect on the next request',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { params: z.object({ id: z.uuid() }) },
  responses: { 204: { description: 'It is revoked; also when it was before.' }, ...errorResponses(404) },
})

export function registerRevokeToken(app: App): void {
  app.openapi(route, async (c) => {
    await revokeToken({ ctx: c.var.ctx, input: c.req.valid('param') })
    return c.body(null, 204)
  })
}
