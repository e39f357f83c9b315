import { z } from '@hono/zod-openapi'
import { EVALUATION_HOWS } from '../../../patch/evaluation.ts'
import { Job } from '../jobs/job-schema.ts'
import { ManifestFile } from '../models/model-schema.ts'
import { Digest } from '../runner/runner-schema.ts'

export const How = z.enum(EVALUATION_HOWS).openapi({ description: '`plain`: the target alone; `merged`: the patch merged into it; `peft`: the patch applied by PEFT while the target runs.' })

export const TaskScore = z
  .object({
    task: z.string(),
    version: z.string().openapi({ description: 'Of the task. Scores of different versions cannot be compared.' }),
    metric: z.string(),
    filter: z.string(),
    value: z.number(),
    stderr: z.number().nullable().openapi({ description: 'Standard error; null where the metric has none.' }),
    samples: z.int().min(0).openapi({ description: 'Questions.' }),
    higher_is_better: z.boolean(),
  })
  .openapi('TaskScore')

const EvaluationSpec = z
  .object({
    how: How, tasks: z.array(z.string()).readonly(), taskFile: z.string().nullable(), data: z.string().nullable(),
    num_fewshot: z.int().nullable(), batch_size: z.int(), limit: z.int().nullable(), seed: z.int(),
  })
  .openapi('EvaluationSpec')

const EvaluationResult = z
  .object({
    format: z.literal('portllm.evaluation/1'),
    target: Digest,
    patch: Digest.nullable(),
    derivation: z.string().nullable().openapi({ description: 'Id of the merged model.' }),
    measured: z.object({
      by: z.string().openapi({ description: 'Who says so: the address of a registry.' }),
      at: z.iso.datetime(),
      versions: z.record(z.string(), z.string()).openapi({ description: 'Of lm-eval and what it stands on.' }),
      device: z.string(),
      seconds: z.number(),
    }),
    scores: z.array(TaskScore).readonly(),
  })
  .openapi('EvaluationResult')

const Version = z.object({ reference: z.string(), digest: Digest })

export const EvaluationSummary = z
  .object({
    id: z.uuid(),
    state: z.enum(['queued', 'ready', 'failed']),
    target: Version,
    patch: Version.extend({ base: Version }).nullable().openapi({ description: 'Its one patch, as it was published; null where it has none, several, or one with a weight.' }),
    patches: z.array(Version.extend({ weight: z.number() })).openapi({ description: 'All of its patches, in the order of summation.' }),
    spec: EvaluationSpec,
    result: EvaluationResult.nullable(),
    createdAt: z.iso.datetime(),
    readyAt: z.iso.datetime().nullable(),
  })
  .openapi('EvaluationSummary')

export const Evaluation = EvaluationSummary.extend({
  files: z.array(ManifestFile).openapi({ description: 'What was recorded of each question: `GET /v1/evaluations/{id}/files/{path}`.' }),
  job: Job.nullable(),
}).openapi('Evaluation')

export const PendingEvaluation = z.object({ evaluation: z.uuid(), job: Job }).openapi('PendingEvaluation')
export const EvaluationParams = z.object({ id: z.uuid() })
