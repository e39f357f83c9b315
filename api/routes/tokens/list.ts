import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { listTokens } from '../../services/tokens/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenRequired } from '../security.ts'
import { Token } from './token-schema.ts'

const TokenPage = pageOf(Token).openapi('TokenPage')

const route = createRoute({
  method: 'get',
  path: '/v1/tokens',
  operationId: 'listTokens',
  tags: ['accounts'],
  summary: 'Your tokens, newest first, without the tokens themselves',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { query: z.object(PageQuery) },
  responses: { 200: jsonContent(TokenPage, 'One page.'), ...errorResponses() },
})

export function registerListTokens(app: App): void {
  app.openapi(route, async (c) => c.json(await listTokens({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
