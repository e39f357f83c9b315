import { z } from '@hono/zod-openapi'
import { RULES } from '../../../patch/derivation.ts'
import { DTYPE_BITS, type Dtype } from '../../../patch/dtype.ts'
import { JOB_KINDS } from '../../ports/job-queue.ts'
import { Job } from '../jobs/job-schema.ts'
import { FinetuneOptions, TrainingRecord } from '../trainings/training-schema.ts'

const Dtypes = z.enum(Object.keys(DTYPE_BITS) as [Dtype, ...Dtype[]])
export const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/)
const Sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const Size = z.int().min(0)

export const SignedRequest = z.object({ method: z.enum(['GET', 'PUT']), url: z.url(), headers: z.record(z.string(), z.string()) }).openapi('SignedRequest')

/** As gpu-runner/protocol.ts reads it. */
const SignedBytes = z.object({ get: SignedRequest, length: Size, dtype: Dtypes })
const FactorView = z.object({ factor: Size, offset: Size, strides: z.tuple([Size, Size]) })
const product = { rank: Size, scale: z.number(), left: FactorView, right: FactorView }
const Contribution = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('product'), ...product }),
  z.object({ kind: z.literal('dora'), ...product, magnitude: FactorView.omit({ strides: true }), axis: z.enum(['rows', 'columns']), weight: z.number() }),
  z.object({ kind: z.literal('initial'), method: z.enum(['pissa', 'olora']), rank: Size, scale: z.number(), base: SignedBytes, first: Size }),
  z.object({ kind: z.literal('dense'), scale: z.number(), value: SignedBytes, base: SignedBytes.nullable() }),
  z.object({ kind: z.literal('replace'), value: SignedBytes }),
])

const IngestSpec = z.object({
  kind: z.literal('ingest'),
  subject: z.enum(['model', 'patch', 'dataset']),
  files: z.array(z.object({ path: z.string(), size: Size, sha256: Sha256, get: SignedRequest })),
})
const Block = z.object({ first: Size, count: Size, contributions: z.array(Contribution) }).openapi('Block')
const MergeSpec = z.object({
  kind: z.literal('merge'),
  rules: z.array(z.enum(RULES)),
  derivation: Sha256,
  tensors: z.array(z.object({
    name: z.string(), dtype: Dtypes, rows: Size, cols: Size, length: Size, source: SignedRequest,
    factors: z.array(SignedBytes),
    blocks: z.array(Block),
    put: SignedRequest.nullable(),
  })),
})

const SignedRange = z.object({ get: SignedRequest, length: Size })
const AnalyzeSpec = z.object({
  kind: z.literal('analyze'),
  analysis: z.uuid(),
  tensors: z.array(z.object({
    name: z.string(), dtype: Dtypes, baseDtype: Dtypes, cols: Size,
    factors: z.array(SignedBytes),
    runs: z.array(z.object({ block: Block, target: SignedRange, base: SignedRange, sample: z.array(z.object({ row: Size, base: SignedRange })) })),
  })),
})

const SignedFile = z.object({ path: z.string(), size: Size, sha256: Sha256.nullable(), extents: z.array(SignedRange) })
const EvaluateSpec = z.object({
  kind: z.literal('evaluate'),
  evaluation: z.uuid(),
  model: z.array(SignedFile),
  adapter: z.array(SignedFile).nullable(),
  tasks: z.array(z.string()), taskFile: z.string().nullable(), data: z.string().nullable(),
  num_fewshot: Size.nullable(), batch_size: Size, limit: Size.nullable(), seed: Size,
})
const TrainingData = z.union([z.object({ folder: z.string() }), z.object({ dataset: z.string(), digest: Digest, files: z.array(SignedFile) })]).nullable()
const FinetuneSpec = z.object({ kind: z.literal('finetune'), base: z.array(SignedFile), baseName: z.string(), task: z.string(), taskFile: z.string().nullable(), data: TrainingData, options: FinetuneOptions })
const EvolveSpec = z.object({ kind: z.literal('evolve'), parent: z.array(SignedFile), config: z.string(), data: TrainingData })

export const Claim = z
  .object({
    job: z.object({ id: z.uuid(), kind: z.enum(JOB_KINDS), attempt: z.int().min(1) }),
    token: z.string(),
    leaseSeconds: z.int(),
    spec: z.discriminatedUnion('kind', [IngestSpec, MergeSpec, AnalyzeSpec, EvaluateSpec, FinetuneSpec, EvolveSpec]),
  })
  .openapi('Claim')

export const Progress = Job.shape.progress.unwrap()

const ManifestFile = z.object({ path: z.string(), size: Size, etag: Sha256 })
const ManifestTensor = z.object({ name: z.string(), dtype: Dtypes, shape: z.array(Size), file: z.string(), offset: Size, length: Size, digest: Digest })
export const ModelFacts = z.object({
  modelType: z.string().nullable(), architectures: z.array(z.string()), tieWordEmbeddings: z.boolean(), quantization: z.string().nullable(),
  layerCount: z.int().nullable(), vocabularySize: z.int().nullable(), tokenizerDigest: Digest.nullable(), chatTemplateDigest: Digest.nullable(),
})
export const ModelManifest = z.object({ format: z.literal('portllm.model/1'), files: z.array(ManifestFile), tensors: z.array(ManifestTensor), facts: ModelFacts }).openapi('ModelManifest')
export const PatchManifest = z.object({ format: z.literal('portllm.patch/1'), files: z.array(ManifestFile), tensors: z.array(ManifestTensor), adapterConfig: z.string() }).openapi('PatchManifest')

export const DatasetManifest = z.object({ format: z.literal('portllm.dataset/1'), files: z.array(ManifestFile) }).openapi('DatasetManifest')

const Rejection = z.object({ code: z.string().max(100), message: z.string().max(4000), file: z.string().optional(), tensor: z.string().optional() })
export const IngestResult = z.union([
  z.strictObject({ manifest: z.discriminatedUnion('format', [ModelManifest, PatchManifest, DatasetManifest]), readme: z.string().nullable() }),
  z.strictObject({ rejection: z.array(Rejection).min(1) }),
])
export const MergeResult = z.strictObject({
  engine: z.object({ name: z.string(), version: z.string(), path: z.string() }),
  tensors: z.array(z.object({ name: z.string(), digest: Digest, length: Size, patchNorm: z.number(), realisedNorm: z.number(), residualNorm: z.number(), paths: z.array(z.string()) })),
  seconds: z.number().min(0),
})

const Square = z.number().min(0)
const AnalysisSums = z.strictObject({
  baseSquared: Square, driftSquared: Square, patchSquared: Square, patchSpectral: Square, inner: z.number(),
  driftReadSquared: Square, driftReadExpected: Square, baseReadSquared: Square, driftWriteSquared: Square, driftWriteExpected: Square, baseWriteSquared: Square,
  mergedSquared: Square, lostSquared: Square, nonFinite: Size,
  rowsSampled: Size, rowsElsewhere: Size, sameRowCosine: z.number(), bestOtherCosine: z.number(),
})
export const AnalyzeResult = z.strictObject({
  engine: z.object({ name: z.string(), version: z.string(), path: z.string() }),
  measured: z.array(z.strictObject({ name: z.string(), rows: Size, cols: Size, rank: Size, sums: AnalysisSums })),
  seconds: z.number().min(0),
})

const MadeFile = z.strictObject({ path: z.string(), size: Size, sha256: Sha256 })
export const TrainResult = z.strictObject({ training: TrainingRecord, files: z.array(MadeFile).min(1).max(10_000) })
export const EvaluateResult = z.strictObject({
  scores: z.array(z.strictObject({
    task: z.string().min(1).max(200), version: z.string().max(100), metric: z.string().min(1).max(100), filter: z.string().max(100),
    value: z.number(), stderr: z.number().min(0).nullable(), samples: Size, higher_is_better: z.boolean(),
  })).min(1).max(10_000),
  files: z.array(MadeFile).max(1000),
  versions: z.record(z.string().max(100), z.string().max(200)),
  device: z.string().max(200),
  seconds: z.number().min(0),
})

/** Security of what a runner reports: the token of its attempt, which the services check. */
export const attemptToken: Record<string, string[]>[] = [{ attempt: [] }]
export const AttemptParams = z.object({ id: z.uuid() })
