import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { listOrganizations } from '../../services/organizations/list.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { PageQuery, pageOf } from '../pagination.ts'
import { tokenOptional } from '../security.ts'
import { Organization } from './organization-schema.ts'

const OrganizationPage = pageOf(Organization).openapi('OrganizationPage')

const route = createRoute({
  method: 'get',
  path: '/v1/organizations',
  operationId: 'listOrganizations',
  tags: ['accounts'],
  summary: 'Organizations that you may see, by name',
  security: tokenOptional,
  request: { query: z.object(PageQuery) },
  responses: { 200: jsonContent(OrganizationPage, 'One page.'), ...errorResponses() },
})

export function registerListOrganizations(app: App): void {
  app.openapi(route, async (c) => c.json(await listOrganizations({ ctx: c.var.ctx, input: c.req.valid('query') }), 200))
}
