import { z } from '@hono/zod-openapi'
import { ManifestFile } from '../models/model-schema.ts'
import { Digest, PublishState, Rejection, Visibility } from '../uploads/upload-schema.ts'

export const DatasetListItem = z
  .object({
    organization: z.string(),
    name: z.string(),
    description: z.string(),
    visibility: Visibility,
    createdAt: z.iso.datetime(),
    latestVersion: z.string().nullable().openapi({ description: 'Published last.' }),
  })
  .openapi('DatasetListItem')

const DatasetVersionSummary = z
  .object({ version: z.string(), state: PublishState, digest: Digest.nullable(), createdAt: z.iso.datetime(), publishedAt: z.iso.datetime().nullable() })
  .openapi('DatasetVersionSummary')

export const Dataset = z
  .object({
    organization: z.string(),
    name: z.string(),
    description: z.string(),
    visibility: Visibility,
    createdAt: z.iso.datetime(),
    versions: z.array(DatasetVersionSummary).openapi({ description: 'Newest first.' }),
  })
  .openapi('Dataset')

export const DatasetVersion = DatasetVersionSummary.extend({
  reference: z.string(),
  organization: z.string(),
  name: z.string(),
  files: z.array(ManifestFile),
  rejection: z.array(Rejection).nullable(),
}).openapi('DatasetVersion')
