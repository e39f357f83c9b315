import { z } from '@hono/zod-openapi'
import { Training } from '../trainings/training-schema.ts'
import { Digest, PublishState, Rejection, Visibility } from '../uploads/upload-schema.ts'

export const Origin = z.enum(['uploaded', 'derived'])
export const Parent = z.object({ reference: z.string(), kind: z.string() })

export const ModelListItem = z
  .object({
    organization: z.string(),
    name: z.string(),
    description: z.string(),
    visibility: Visibility,
    createdAt: z.iso.datetime(),
    latestVersion: z.string().nullable().openapi({ description: 'Published last.' }),
  })
  .openapi('ModelListItem')

export const ModelVersionSummary = z
  .object({
    version: z.string(),
    state: PublishState,
    digest: Digest.nullable(),
    origin: Origin,
    parent: Parent.nullable(),
    createdAt: z.iso.datetime(),
    publishedAt: z.iso.datetime().nullable(),
  })
  .openapi('ModelVersionSummary')

export const Model = z
  .object({
    organization: z.string(),
    name: z.string(),
    description: z.string(),
    visibility: Visibility,
    createdAt: z.iso.datetime(),
    versions: z.array(ModelVersionSummary).openapi({ description: 'Newest first.' }),
  })
  .openapi('Model')

export const ManifestFile = z.object({
  path: z.string(),
  size: z.int(),
  etag: z.string().openapi({ description: 'SHA-256 of the content, in hex.' }),
})

export const ModelFacts = z
  .object({
    modelType: z.string().nullable(),
    architectures: z.array(z.string()).readonly(),
    tieWordEmbeddings: z.boolean(),
    quantization: z.string().nullable(),
    layerCount: z.int().nullable(),
    vocabularySize: z.int().nullable(),
    tokenizerDigest: z.string().nullable(),
    chatTemplateDigest: z.string().nullable(),
  })
  .openapi('ModelFacts')

export const ModelVersion = z
  .object({
    reference: z.string(),
    organization: z.string(),
    name: z.string(),
    version: z.string(),
    state: PublishState,
    digest: Digest.nullable(),
    origin: Origin,
    parent: Parent.nullable(),
    facts: ModelFacts.nullable(),
    files: z.array(ManifestFile),
    tensorCount: z.int(),
    parameterCount: z.int(),
    createdAt: z.iso.datetime(),
    publishedAt: z.iso.datetime().nullable(),
    rejection: z.array(Rejection).nullable(),
    training: Training.nullable(),
  })
  .openapi('ModelVersion')

const ManifestTensor = z.object({
  name: z.string(),
  dtype: z.string(),
  shape: z.array(z.int()).readonly(),
  file: z.string(),
  offset: z.int(),
  length: z.int(),
  digest: Digest,
})

export const ModelManifest = z
  .object({ format: z.literal('portllm.model/1'), files: z.array(ManifestFile).readonly(), tensors: z.array(ManifestTensor).readonly(), facts: ModelFacts })
  .openapi('ModelManifest')

export const PatchManifest = z
  .object({ format: z.literal('portllm.patch/1'), files: z.array(ManifestFile).readonly(), tensors: z.array(ManifestTensor).readonly(), adapterConfig: z.string() })
  .openapi('PatchManifest')

export const Ancestor = z
  .object({ reference: z.string(), digest: Digest, kind: z.string().openapi({ description: 'How the version before it in this list descends from it.' }) })
  .openapi('Ancestor')
