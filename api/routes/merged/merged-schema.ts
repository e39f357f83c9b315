import { z } from '@hono/zod-openapi'
import { Job } from '../jobs/job-schema.ts'
import { TensorReceipt } from '../derivations/receipt-schema.ts'
import { Digest } from '../runner/runner-schema.ts'

/** `patch=` once or several times. */
export const PatchReferences = z
  .union([z.string(), z.array(z.string())], { error: 'name at least one patch, as patch=org/name@range:weight' })
  .transform((value) => (typeof value === 'string' ? [value] : value))
  .openapi({ type: 'array', items: { type: 'string' }, description: '`org/name`, with `@version`, `@range` or `@tag`, and `:weight`. Repeat it for several patches; their order is the order of summation.', example: ['hospital/triage@^1:0.5'] })

export const DerivationOptions = z
  .strictObject({
    absolute: z.literal('replace').optional().openapi({ description: 'Full values of a patch are written over what the target has learned; without it, what training changed of the base is added.' }),
    tied: z.literal('untie').optional().openapi({ description: 'Where a patch changes one end of tied embeddings, the merged model gets a head of its own; without it, such a patch is refused.' }),
  })
  .openapi('DerivationOptions')

export const Storage = z.enum(['computed', 'materialised'])

/** For a request that may start a merge. */
export const AskedStorage = Storage.optional().openapi({ description: 'How the result is kept where this request starts the merge; without it, as suits the patches. `storage` of the answer says how it is; `PUT /v1/derivations/{id}/storage` changes it.' })

export const Merged = z
  .object({
    id: z.string(),
    state: z.enum(['queued', 'ready', 'failed']),
    rules: z.array(z.string()).openapi({ description: 'The rules of arithmetic in use (docs/numerics.md).' }),
    options: DerivationOptions.openapi({ description: 'What was asked for and made a difference.' }),
    dtype: z.string(),
    target: z.object({ reference: z.string(), digest: Digest }),
    patches: z.array(z.object({ reference: z.string(), digest: Digest, weight: z.number(), base: Digest.nullable().openapi({ description: 'The base, where the merge reads it.' }) })),
    files: z.array(z.object({ path: z.string(), size: z.int(), etag: z.string(), changed: z.boolean() })),
    receipt: z
      .object({
        engine: z.object({ name: z.string(), version: z.string(), path: z.string() }),
        tensors: z.array(TensorReceipt),
        seconds: z.number(),
      })
      .nullable(),
    storage: Storage.openapi({ description: 'Whether the changed tensors are kept as blobs, or computed whenever they are fetched. The bytes are the same.' }),
    storageReason: z.string(),
    storedBytes: z.int().openapi({ description: 'Kept for this merged model alone: its new headers, and its changed tensors where they are materialised.' }),
    job: Job.nullable(),
    manifest: z.url(),
    page: z.url(),
    createdAt: z.iso.datetime(),
    readyAt: z.iso.datetime().nullable(),
  })
  .openapi('Merged')

export const Pending = z.object({ derivation: z.string(), job: Job }).openapi('PendingMerge')
