import { z } from '@hono/zod-openapi'
import { SCOPES } from '../../services/authorization/principal.ts'

export const ScopeName = z.enum(SCOPES)
export const RoleName = z.enum(['reader', 'publisher', 'admin'])

export const Token = z
  .object({
    id: z.uuid(),
    name: z.string(),
    scopes: z.array(ScopeName),
    organization: z.string().nullable().openapi({ description: 'The one organization that the token is limited to.' }),
    createdAt: z.iso.datetime(),
    expiresAt: z.iso.datetime().nullable(),
    lastUsedAt: z.iso.datetime().nullable().openapi({ description: 'To the minute.' }),
    revokedAt: z.iso.datetime().nullable(),
  })
  .openapi('Token')
