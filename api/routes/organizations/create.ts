import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { createOrganization } from '../../services/organizations/create.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { tokenRequired } from '../security.ts'
import { Organization } from './organization-schema.ts'

const NewOrganization = z
  .strictObject({ name: z.string().openapi({ example: 'mercy-hospital' }), displayName: z.string().trim().min(1).max(200).optional() })
  .openapi('NewOrganization')

const route = createRoute({
  method: 'post',
  path: '/v1/organizations',
  operationId: 'createOrganization',
  tags: ['accounts'],
  summary: 'Make an organization',
  description: 'For administrators of the registry. The caller becomes an admin of the organization.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(NewOrganization) },
  responses: { 201: jsonContent(Organization, 'It exists now.'), ...errorResponses(403, 409) },
})

export function registerCreateOrganization(app: App): void {
  app.openapi(route, async (c) => c.json(await createOrganization({ ctx: c.var.ctx, input: c.req.valid('json') }), 201))
}
