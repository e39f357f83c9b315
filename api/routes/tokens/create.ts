import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { createToken } from '../../services/tokens/create.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { tokenRequired } from '../security.ts'
import { ScopeName, Token } from './token-schema.ts'

const NewToken = z
  .strictObject({
    name: z.string().trim().min(1).max(100),
    scopes: z.array(ScopeName).min(1).transform((scopes) => [...new Set(scopes)]),
    organization: z.string().optional().openapi({ description: 'Limits the token to one organization.' }),
    expiresAt: z.iso.datetime({ offset: true }).optional(),
  })
  .openapi('NewToken')

const CreatedToken = Token.extend({ token: z.string().openapi({ description: 'Shown this once.' }) }).openapi('CreatedToken')

const route = createRoute({
  method: 'post',
  path: '/v1/tokens',
  operationId: 'createToken',
  tags: ['accounts'],
  summary: 'Make a token for yourself',
  description: 'It can never do more than the token that makes it.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(NewToken) },
  responses: { 201: jsonContent(CreatedToken, 'The token, shown this once.'), ...errorResponses(403, 404) },
})

export function registerCreateToken(app: App): void {
  app.openapi(route, async (c) => c.json(await createToken({ ctx: c.var.ctx, input: c.req.valid('json') }), 201))
}
