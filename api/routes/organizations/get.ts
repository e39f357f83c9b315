import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { findOrganization } from '../../services/organizations/find.ts'
import { toOrganizationView } from '../../services/organizations/organization-view.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { Organization } from './organization-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/organizations/{org}',
  operationId: 'getOrganization',
  tags: ['accounts'],
  summary: 'One organization',
  security: tokenOptional,
  request: { params: z.object({ org: z.string() }) },
  responses: { 200: jsonContent(Organization, 'The organization.'), ...errorResponses(404) },
})

export function registerGetOrganization(app: App): void {
  app.openapi(route, async (c) => {
    const row = await findOrganization({ ctx: c.var.ctx, name: c.req.valid('param').org })
    return c.json(toOrganizationView(row), 200)
  })
}
