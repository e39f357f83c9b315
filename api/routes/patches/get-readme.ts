import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { readPatchReadme } from '../../services/patches/read-readme.ts'
import { errorResponses } from '../error-responses.ts'
import { FamilyParams, toNames } from '../reference-params.ts'
import { tokenOptional } from '../security.ts'


const route = createRoute({
  method: 'get',
  path: '/v1/patches/{org}/{name}/readme',
  operationId: 'getPatchReadme',
  tags: ['patches'],
  summary: 'README of the newest version',
  security: tokenOptional,
  request: { params: FamilyParams },
  responses: { 200: { description: 'Markdown.', content: { 'text/markdown': { schema: z.string() } } }, ...errorResponses(404) },
})

export function registerGetPatchReadme(app: App): void {
  app.openapi(route, async (c) => {
    const readme = await readPatchReadme({ ctx: c.var.ctx, input: toNames(c.req.valid('param')) })
    return c.body(readme, 200, { 'Content-Type': 'text/markdown; charset=utf-8', 'X-Content-Type-Options': 'nosniff' })
  })
}
