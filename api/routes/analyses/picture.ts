import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { sharing } from '../../middleware/caching.ts'
import { drawAnalysis } from '../../services/analyses/draw.ts'
import { errorResponses } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { AnalysisParams } from './analysis-schema.ts'

const CACHE_SECONDS = 3600

const route = createRoute({
  method: 'get',
  path: '/v1/analyses/{id}/picture.svg',
  operationId: 'getAnalysisPicture',
  tags: ['analyses'],
  summary: 'An analysis as a picture, layer by layer',
  description: 'Relative drift, interference and patch over drift of attention and MLP.',
  security: tokenOptional,
  request: { params: AnalysisParams },
  responses: { 200: { description: 'The picture.', content: { 'image/svg+xml': { schema: z.string() } } }, ...errorResponses(404, 409) },
})

export function registerGetAnalysisPicture(app: App): void {
  app.openapi(route, async (c) => {
    const { svg, isPublic } = await drawAnalysis({ ctx: c.var.ctx, input: c.req.valid('param') })
    return c.body(svg, 200, {
      'Content-Type': 'image/svg+xml; charset=utf-8',
      // Opened by itself an SVG is a document, which could run scripts; this one needs nothing.
      'Content-Security-Policy': "default-src 'none'; sandbox",
      'X-Content-Type-Options': 'nosniff',
      'Cache-Control': `${sharing(c, isPublic)}, max-age=${CACHE_SECONDS}`,
    })
  })
}
