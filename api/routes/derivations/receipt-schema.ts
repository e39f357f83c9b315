import { z } from '@hono/zod-openapi'
import { RULES } from '../../../patch/derivation.ts'
import { Digest } from '../runner/runner-schema.ts'

export const TensorReceipt = z.object({
  name: z.string(),
  digest: Digest,
  patchNorm: z.number(),
  realisedNorm: z.number(),
  residualNorm: z.number(),
  paths: z.array(z.string()).openapi({ description: 'Paths of the merge core that computed it; the bytes do not depend on them.' }),
})

const Recipe = z
  .object({
    format: z.literal('portllm.derivation/1'),
    rules: z.array(z.enum(RULES)),
    target: Digest,
    patches: z.array(z.object({ digest: Digest, weight: z.number(), base: Digest.optional() })),
    options: z.object({ absolute: z.literal('replace').optional(), tied: z.literal('untie').optional() }).optional(),
    dtype: z.literal('target'),
  })
  .openapi('Recipe')

/** As in patch/receipt.ts. */
export const Receipt = z
  .object({
    format: z.literal('portllm.receipt/1'),
    derivation: z.string(),
    recipe: Recipe,
    engine: z.object({ name: z.string(), version: z.string(), path: z.string() }),
    tensors: z.array(TensorReceipt),
    totals: z.object({ patchNorm: z.number(), realisedDelta: z.number().nullable(), roundingLoss: z.number().nullable() }),
  })
  .openapi('Receipt')
