import { z } from '@hono/zod-openapi'

export const Organization = z
  .object({ name: z.string(), displayName: z.string().nullable(), createdAt: z.iso.datetime() })
  .openapi('Organization')
