import { z } from 'zod'
import type { MeasuredTensor } from '../patch/analysis.ts'
import { MERGEABLE_DTYPES, TARGET_DTYPES } from '../patch/dtype.ts'
import { RULES } from '../patch/derivation.ts'
import type { TaskScore } from '../patch/evaluation.ts'
import type { VersionManifest } from '../patch/manifest.ts'
import type { TrainingRecord } from '../patch/training.ts'

/** What the registry sends to a runner, and what the runner answers with. Sizes are in bytes. */

/** What Python does, and what the merge core does. */
export const RESEARCH_KINDS = ['evaluate', 'finetune', 'evolve'] as const
export const JOB_KINDS = ['ingest', 'merge', 'analyze', ...RESEARCH_KINDS] as const
export type JobKind = (typeof JOB_KINDS)[number]

const count = z.number().int().nonnegative().refine(Number.isSafeInteger)
const dimension = z.number().int().positive()

const signedRequest = z.object({
  method: z.enum(['GET', 'PUT']),
  url: z.url({ protocol: /^https?$/ }),
  headers: z.record(z.string(), z.string()),
})
/** A request that needs no other credential; its headers, such as Range, must be sent as given. */
export type SignedRequest = z.infer<typeof signedRequest>

const ingestSpec = z.object({
  kind: z.literal('ingest'),
  subject: z.enum(['model', 'patch', 'dataset']),
  files: z.array(z.object({
    path: z.string(),
    size: count,
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
    get: signedRequest,
  })),
})
export type IngestSpec = z.infer<typeof ingestSpec>
export type IngestFile = IngestSpec['files'][number]

/** A run of values of an adapter or of a base, and where to get just them. */
const signedBytes = z.object({ get: signedRequest, length: count, dtype: z.enum(TARGET_DTYPES) })
const signedFactor = signedBytes.extend({ dtype: z.enum(MERGEABLE_DTYPES) })

/** A matrix within the tensor's `factors`, in elements: (i, j) lies at `offset + i·strides[0] + j·strides[1]`. */
const factorView = z.object({ factor: count, offset: count, strides: z.tuple([count, count]) })
const product = { rank: dimension, scale: z.number(), left: factorView, right: factorView }

/** As in patch/merge-plan.ts, whose plan the registry signs. */
const contribution = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('product'), ...product }),
  z.object({ kind: z.literal('dora'), ...product, magnitude: factorView.omit({ strides: true }), axis: z.enum(['rows', 'columns']), weight: z.number() }),
  z.object({ kind: z.literal('initial'), method: z.enum(['pissa', 'olora']), rank: dimension, scale: z.number(), base: signedBytes, first: count }),
  z.object({ kind: z.literal('dense'), scale: z.number(), value: signedBytes, base: signedBytes.nullable() }),
  z.object({ kind: z.literal('replace'), value: signedBytes }),
])
const block = z.object({ first: count, count: dimension, contributions: z.array(contribution) })

const mergeTensor = z.object({
  name: z.string(),
  dtype: z.enum(TARGET_DTYPES),
  rows: dimension,
  cols: dimension,
  length: count,
  source: signedRequest,
  factors: z.array(signedFactor),
  blocks: z.array(block).min(1),
  /** Null: the result is hashed and measured, and not kept. */
  put: signedRequest.nullable(),
})
const mergeSpec = z.object({
  kind: z.literal('merge'),
  rules: z.array(z.enum(RULES)).min(1),
  derivation: z.string(),
  tensors: z.array(mergeTensor).min(1),
})
export type MergeSpec = z.infer<typeof mergeSpec>
export type MergeTensor = z.infer<typeof mergeTensor>
export type MergeBlock = z.infer<typeof block>
export type SignedBytes = z.infer<typeof signedBytes>

const signedRange = z.object({ get: signedRequest, length: count })
/** As in patch/analysis-plan.ts. */
const analyzeTensor = z.object({
  name: z.string(),
  dtype: z.enum(TARGET_DTYPES),
  baseDtype: z.enum(TARGET_DTYPES),
  cols: dimension,
  factors: z.array(signedFactor),
  runs: z.array(z.object({ block, target: signedRange, base: signedRange, sample: z.array(z.object({ row: count, base: signedRange })) })).min(1),
})
const analyzeSpec = z.object({ kind: z.literal('analyze'), analysis: z.string(), tensors: z.array(analyzeTensor) })
export type AnalyzeSpec = z.infer<typeof analyzeSpec>
export type AnalyzeTensor = z.infer<typeof analyzeTensor>
export type SignedRange = z.infer<typeof signedRange>

const signedFile = z.object({
  path: z.string(),
  size: count,
  /** Null where only what the file is made of is known. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/).nullable(),
  /** In order. */
  extents: z.array(signedRange),
})
export type SignedFile = z.infer<typeof signedFile>

const evaluateSpec = z.object({
  kind: z.literal('evaluate'),
  evaluation: z.string(),
  model: z.array(signedFile).min(1),
  adapter: z.array(signedFile).nullable(),
  tasks: z.array(z.string()).min(1),
  taskFile: z.string().nullable(),
  data: z.string().nullable(),
  num_fewshot: count.nullable(),
  batch_size: dimension,
  limit: dimension.nullable(),
  seed: count,
})
export type EvaluateSpec = z.infer<typeof evaluateSpec>

/** A folder of this runner's, or a dataset of the registry; null for the Hub. */
const trainingData = z.union([z.object({ folder: z.string() }), z.object({ dataset: z.string(), digest: z.string(), files: z.array(signedFile).min(1) })]).nullable()
export type TrainingData = z.infer<typeof trainingData>

const finetuneSpec = z.object({
  kind: z.literal('finetune'),
  base: z.array(signedFile).min(1),
  /** As the patch's files name it. */
  baseName: z.string(),
  task: z.string(),
  taskFile: z.string().nullable(),
  data: trainingData,
  options: z.object({
    max_length: dimension, batch_size: dimension, num_workers: count, rank: dimension, lora_alpha: z.number(), lora_dropout: z.number(), lr: z.number(), num_epochs: z.number(), seed: count,
    target_modules: z.array(z.string()).nullable(), gradient_accumulation_steps: dimension, gradient_checkpointing: z.boolean(), bf16: z.boolean(), max_steps: dimension.nullable(), save_steps: dimension,
  }),
})
export type FinetuneSpec = z.infer<typeof finetuneSpec>

const evolveSpec = z.object({ kind: z.literal('evolve'), parent: z.array(signedFile).min(1), config: z.string(), data: trainingData })
export type EvolveSpec = z.infer<typeof evolveSpec>

export const claimAnswer = z.object({
  job: z.object({ id: z.string().min(1), kind: z.enum(JOB_KINDS), attempt: z.number().int() }),
  token: z.string().min(1),
  leaseSeconds: z.number().positive(),
  spec: z.unknown(),
})
/** One attempt of one job. Its spec is read by `jobSpec` later, so that a bad one can be reported as a failure of the job. */
export type Claim = z.infer<typeof claimAnswer>

export const jobSpec = z.discriminatedUnion('kind', [ingestSpec, mergeSpec, analyzeSpec, evaluateSpec, finetuneSpec, evolveSpec])
export const heartbeatAnswer = z.object({ cancel: z.boolean() })

export const outputPlan = z.object({
  files: z.array(z.object({
    path: z.string(),
    /** None for a file that the registry has already. */
    parts: z.array(signedRequest.extend({ offset: count, length: count, stored: z.boolean() })),
  })),
})
export type OutputPlan = z.infer<typeof outputPlan>

/** As the registry knows them. */
export const PROGRESS_UNITS = ['bytes', 'tensors', 'files', 'steps', 'examples', 'packages'] as const

export interface Progress {
  readonly phase: string
  readonly done: number
  readonly total: number
  readonly unit: string
}

/** One reason why an upload is not published. */
export interface Finding {
  readonly code: string
  readonly message: string
  readonly file?: string
  readonly tensor?: string
}

export type IngestResult =
  | { readonly manifest: VersionManifest; readonly readme: string | null }
  | { readonly rejection: readonly Finding[] }

export interface MergedTensor {
  readonly name: string
  /** `sha256:<64 hex>` of the merged bytes. */
  readonly digest: string
  readonly length: number
  /** Frobenius norm of what was asked to be added, and of what rounding left of it. */
  readonly patchNorm: number
  readonly realisedNorm: number
  /** … and of what rounding took. */
  readonly residualNorm: number
  /** The core's paths that computed it: usually the engine's, the processor's for what a GPU path cannot merge. */
  readonly paths: readonly string[]
}

export interface Engine { readonly name: string; readonly version: string; readonly path: string }

export interface MergeResult {
  readonly engine: Engine
  readonly tensors: readonly MergedTensor[]
  readonly seconds: number
}

export interface AnalyzeResult {
  readonly engine: Engine
  /** In the order of the spec. */
  readonly measured: readonly MeasuredTensor[]
  readonly seconds: number
}

export interface MadeFile { readonly path: string; readonly size: number; readonly sha256: string }

export interface EvaluateResult {
  readonly scores: readonly TaskScore[]
  /** What was asked and answered; sent before. */
  readonly files: readonly MadeFile[]
  readonly versions: Readonly<Record<string, string>>
  readonly device: string
  readonly seconds: number
}

export interface TrainResult {
  readonly training: TrainingRecord
  /** Those of the version; sent before. */
  readonly files: readonly MadeFile[]
}

export type JobResult = IngestResult | MergeResult | AnalyzeResult | EvaluateResult | TrainResult

