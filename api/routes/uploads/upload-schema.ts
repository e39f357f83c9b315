import { z } from '@hono/zod-openapi'
import { Job } from '../jobs/job-schema.ts'

export const PublishState = z.enum(['draft', 'uploaded', 'verifying', 'published', 'rejected'])
export const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/).openapi({ example: `sha256:${'0'.repeat(64)}` })
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hex digits')

export const Rejection = z
  .object({ code: z.string(), message: z.string(), file: z.string().optional(), tensor: z.string().optional() })
  .openapi('Rejection')

/** Most files of one version. */
const MAX_FILES = 10_000

export const NewFiles = z
  .array(
    z.strictObject({
      path: z.string(),
      size: z.int().min(0),
      sha256: Sha256,
    }),
  )
  .min(1)
  .max(MAX_FILES)

export const Visibility = z.enum(['public', 'internal'])
export const Description = z.string().max(2000)

export const UploadPart = z.object({
  number: z.int().min(1),
  offset: z.int(),
  length: z.int(),
  stored: z.boolean().openapi({ description: 'It has arrived; it need not be sent again.' }),
  method: z.literal('PUT'),
  url: z.string(),
  headers: z.record(z.string(), z.string()),
})

export const Upload = z
  .object({
    reference: z.string(),
    state: PublishState,
    digest: Digest.openapi({ description: 'The digest that these files will have as a version. Send it with `complete`.' }),
    files: z.array(
      z.object({
        path: z.string(),
        size: z.int(),
        sha256: Sha256,
        held: z.boolean().openapi({ description: 'Your organization has these bytes in the registry already: nothing to send.' }),
        parts: z.array(UploadPart),
      }),
    ),
    job: Job.nullable(),
    rejection: z.array(Rejection).nullable(),
  })
  .openapi('Upload')

export const CompleteBody = z
  .strictObject({ digest: Digest.optional().openapi({ description: 'Completes only if these are still the files of the draft.' }) })
  .openapi('CompleteUpload')

export const FamilyUpdate = z
  .strictObject({ description: Description.optional(), visibility: Visibility.optional() })
  .refine((update) => update.description !== undefined || update.visibility !== undefined, 'must change something: description or visibility')
  .openapi('FamilyUpdate')
