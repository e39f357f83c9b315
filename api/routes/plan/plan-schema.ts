import { z } from '@hono/zod-openapi'

const PlanExtent = z.object({
  blob: z.string().nullable().openapi({ description: 'SHA-256 of the blob, 64 hex digits. Null: the registry computes these bytes of a merged model when they are asked for, and the request is for its own route of the file, to be sent with your token.' }),
  offset: z.number().int().openapi({ description: 'In the blob; in the file where there is none.' }),
  length: z.number().int(),
  method: z.literal('GET'),
  url: z.string(),
  headers: z.record(z.string(), z.string()).openapi({ description: 'To be sent with the request; the URL is good for no other range.' }),
})

export const Plan = z
  .object({
    files: z.array(z.object({ path: z.string(), size: z.number().int(), etag: z.string(), extents: z.array(PlanExtent) })),
    expiresAt: z.iso.datetime().openapi({ description: 'Until then the URLs work.' }),
  })
  .openapi('Plan')

export const PLAN_DESCRIPTION =
  'One request for each extent, signed where it is of a stored blob. Fetched in any order and put together in this one, they are the file. ' +
  'Extents are at most 64 MiB; neighbours may lie in the same blob.'

/** The URLs are credentials, and they expire. */
export const PLAN_CACHE = { 'Cache-Control': 'private, no-store' }
