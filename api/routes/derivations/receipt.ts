import { createRoute } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import type { Receipt as ReceiptOfMerge } from '../../../patch/receipt.ts'
import { immutable } from '../../middleware/caching.ts'
import { readReceipt } from '../../services/derivations/read-receipt.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import type { Mutable } from '../mutable.ts'
import { tokenOptional } from '../security.ts'
import { DerivationParams } from './get.ts'
import { Receipt } from './receipt-schema.ts'

const route = createRoute({
  method: 'get',
  path: '/v1/derivations/{id}/receipt',
  operationId: 'getReceipt',
  tags: ['merging'],
  summary: 'The receipt of a merged model',
  description: 'From what it was made and by which rules, by what engine, to which bytes, and what rounding left of the patches. `portllm verify` computes the merge again and compares.',
  security: tokenOptional,
  request: { params: DerivationParams },
  responses: { 200: jsonContent(Receipt, 'The receipt.'), ...errorResponses(404, 409) },
})

export function registerGetReceipt(app: App): void {
  app.openapi(route, async (c) => {
    const { receipt, isPublic } = await readReceipt({ ctx: c.var.ctx, id: c.req.valid('param').id })
    c.header('Cache-Control', immutable(c, isPublic))
    return c.json(receipt as Mutable<ReceiptOfMerge>, 200)
  })
}
