import { z } from '@hono/zod-openapi'
import { PROGRESS_UNITS } from '../../../db/schema.ts'

export const Job = z
  .object({
    id: z.uuid(),
    kind: z.enum(['ingest', 'merge', 'analyze', 'evaluate', 'finetune', 'evolve']),
    state: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
    attempt: z.int(),
    progress: z.object({ phase: z.string(), done: z.number(), total: z.number(), unit: z.enum(PROGRESS_UNITS) }).nullable(),
    failure: z.object({ code: z.string(), message: z.string(), retryable: z.boolean() }).nullable(),
    subject: z.object({ kind: z.enum(['model-version', 'patch-version', 'dataset-version', 'derivation', 'analysis', 'evaluation']), reference: z.string() }),
    createdAt: z.iso.datetime(),
    startedAt: z.iso.datetime().nullable(),
    endedAt: z.iso.datetime().nullable(),
  })
  .openapi('Job')
