import { z } from '@hono/zod-openapi'
import { MODEL_PARTS } from '../../../patch/model-part.ts'
import { Job } from '../jobs/job-schema.ts'
import { Digest } from '../runner/runner-schema.ts'

const Quotient = z.number().nullable()
const SeenDrift = z.object({ share: z.number(), chance: z.number(), lift: z.number() }).nullable()

const AnalysisFigures = z
  .object({
    relativeDrift: Quotient.openapi({ description: '‖D‖/‖W‖, where D = W′ − W is what the target changed.' }),
    patchNorm: z.number().openapi({ description: '‖P‖, Frobenius.' }),
    patchSpectralNorm: z.number().openapi({ description: 'Largest singular value of P.' }),
    patchOverDrift: Quotient.openapi({ description: '‖P‖/‖D‖' }),
    interference: Quotient.openapi({ description: 'Cosine of D and P; negative where the update opposes the patch.' }),
    seen: z.object({ read: SeenDrift, write: SeenDrift }).openapi({ description: 'Part of the drift in the directions that the patch reads from and writes to, and its lift over chance.' }),
    readDrift: Quotient.openapi({ description: 'Relative drift within the directions that the patch reads from.' }),
    writeDrift: Quotient.openapi({ description: 'Relative drift within the directions that the patch writes to.' }),
    roundingLoss: Quotient.openapi({ description: '‖round(W′+P) − W′ − P‖/‖P‖: what the target’s dtype does not hold of the patch.' }),
    nonFinite: z.int().openapi({ description: 'Merged elements that are NaN or infinite.' }),
    rowMatch: z.object({ sampled: z.int(), elsewhere: z.int(), same: z.number(), bestOther: z.number() }).nullable().openapi({
      description: 'Sampled rows of the base beside rows of the target: how many are nearest to another row than their own, and the mean cosines with their own and with the best other.',
    }),
  })
  .openapi('AnalysisFigures')

const Part = z.enum(MODEL_PARTS)

export const AnalysisParts = z.array(z.object({ part: Part, tensors: z.int(), figures: AnalysisFigures }))

export const AnalysisResult = z
  .object({
    format: z.literal('portllm.analysis/1'),
    patch: Digest,
    base: Digest,
    target: Digest,
    measured: z.object({
      by: z.string().openapi({ description: 'Who says so: the address of a registry.' }),
      at: z.iso.datetime(),
      engine: z.object({ name: z.string(), version: z.string(), path: z.string() }),
      seconds: z.number(),
    }),
    whole: AnalysisFigures,
    parts: AnalysisParts,
    layers: z.array(z.object({ stack: z.string(), layer: z.int(), part: Part, figures: AnalysisFigures })),
    tensors: z.array(z.object({ name: z.string(), part: Part, layer: z.int().nullable(), rows: z.int(), cols: z.int(), rank: z.int(), figures: AnalysisFigures })),
    unmeasured: z.array(z.object({ name: z.string(), reason: z.string() })),
  })
  .openapi('AnalysisResult')

const Version = z.object({ reference: z.string(), digest: Digest })

export const Analysis = z
  .object({
    id: z.uuid(),
    state: z.enum(['queued', 'ready', 'failed']),
    patch: Version,
    base: Version,
    target: Version,
    result: AnalysisResult.nullable(),
    picture: z.url().nullable(),
    job: Job.nullable(),
    createdAt: z.iso.datetime(),
    readyAt: z.iso.datetime().nullable(),
  })
  .openapi('Analysis')

export const PendingAnalysis = z.object({ analysis: z.uuid(), job: Job }).openapi('PendingAnalysis')
export const AnalysisParams = z.object({ id: z.uuid() })
