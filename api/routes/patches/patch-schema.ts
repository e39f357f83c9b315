import { z } from '@hono/zod-openapi'
import { ManifestFile } from '../models/model-schema.ts'
import { Training } from '../trainings/training-schema.ts'
import { Digest, PublishState, Rejection, Visibility } from '../uploads/upload-schema.ts'

export const DistTags = z.record(z.string(), z.string()).openapi('DistTags', { example: { latest: '1.2.0' } })

const Base = z.object({ reference: z.string(), digest: Digest })
const Yanked = z.object({ at: z.iso.datetime(), reason: z.string() })

export const PatchVersionSummary = z
  .object({
    version: z.string(),
    state: PublishState,
    digest: Digest.nullable(),
    base: Base,
    targetRange: z.string().nullable(),
    createdAt: z.iso.datetime(),
    publishedAt: z.iso.datetime().nullable(),
    yanked: Yanked.nullable(),
    deprecated: z.string().nullable(),
  })
  .openapi('PatchVersionSummary')

export const Patch = z
  .object({
    organization: z.string(),
    name: z.string(),
    description: z.string(),
    visibility: Visibility,
    readme: z.string().nullable(),
    createdAt: z.iso.datetime(),
    distTags: DistTags,
    versions: z.array(PatchVersionSummary).openapi({ description: 'Newest first.' }),
  })
  .openapi('Patch')

export const PatchVersion = PatchVersionSummary.extend({
  reference: z.string(),
  organization: z.string(),
  name: z.string(),
  files: z.array(ManifestFile),
  tensorCount: z.int(),
  parameterCount: z.int(),
  rejection: z.array(Rejection).nullable(),
  training: Training.nullable(),
}).openapi('PatchVersion')

export const PatchListItem = z
  .object({
    organization: z.string(),
    name: z.string(),
    description: z.string(),
    visibility: Visibility,
    createdAt: z.iso.datetime(),
    latestVersion: z.string().nullable().openapi({ description: 'Of the dist-tag `latest`.' }),
  })
  .openapi('PatchListItem')
