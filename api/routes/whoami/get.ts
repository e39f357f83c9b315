import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { describeCaller } from '../../services/users/describe-caller.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { RoleName, ScopeName } from '../tokens/token-schema.ts'

const Whoami = z
  .object({
    user: z.object({ id: z.uuid(), name: z.string(), isAdmin: z.boolean() }).nullable(),
    token: z
      .object({ id: z.uuid(), scopes: z.array(ScopeName), organization: z.string().nullable(), expiresAt: z.iso.datetime().nullable() })
      .nullable(),
    organizations: z.array(z.object({ name: z.string(), role: RoleName })),
  })
  .openapi('Whoami')

const route = createRoute({
  method: 'get',
  path: '/v1/whoami',
  operationId: 'getWhoami',
  tags: ['accounts'],
  summary: 'Who the token stands for',
  description: 'Without a token, `user` and `token` are null.',
  security: tokenOptional,
  responses: { 200: jsonContent(Whoami, 'The caller.'), ...errorResponses() },
})

export function registerGetWhoami(app: App): void {
  app.openapi(route, async (c) => c.json(await describeCaller({ ctx: c.var.ctx }), 200))
}
