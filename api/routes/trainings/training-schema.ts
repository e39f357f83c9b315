import { z } from '@hono/zod-openapi'
import { MAX_YAML_LENGTH } from '../../../patch/plain-yaml.ts'
import { Job } from '../jobs/job-schema.ts'
import { Digest } from '../uploads/upload-schema.ts'

const count = (max: number) => z.int().min(1).max(max)

/** By the names of the paper's scripts, with their defaults. */
export const FinetuneOptions = z
  .strictObject({
    max_length: count(1_000_000).default(256).openapi({ description: 'Tokens of an example; longer ones are cut.' }),
    batch_size: count(4096).default(4),
    num_workers: z.int().min(0).max(64).default(0),
    rank: count(4096).default(8),
    lora_alpha: z.number().positive().max(1e6).default(16),
    lora_dropout: z.number().min(0).lt(1).default(0.1),
    lr: z.number().positive().max(10).default(1e-4),
    num_epochs: z.number().positive().max(10_000).default(10),
    seed: z.int().min(0).max(2 ** 31 - 1).default(1234),
    target_modules: z.array(z.string().min(1).max(200)).min(1).max(100).readonly().nullable().default(null).openapi({ description: 'By default those that PEFT takes for the architecture.' }),
    gradient_accumulation_steps: count(4096).default(1),
    gradient_checkpointing: z.boolean().default(false),
    bf16: z.boolean().default(false),
    max_steps: count(100_000_000).nullable().default(null).openapi({ description: 'Ends the training before its epochs.' }),
    save_steps: count(100_000_000).default(200).openapi({ description: 'Steps from one checkpoint to the next.' }),
  })
  .openapi('FinetuneOptions')

export const Task = z.string().min(1).max(200)
export const YamlText = z.string().max(MAX_YAML_LENGTH)
export const DataName = z.string().max(200).openapi({ description: 'A dataset of the registry, as `org/name@version`; or data of your organization that the runner has, as `org/name`. The Hub’s by default.', example: 'hospital/notes@1.0' })

const FinetuneSpec = z.object({ base: z.string(), task: z.string(), taskFile: z.string().nullable(), data: z.string().nullable(), options: FinetuneOptions }).openapi('FinetuneSpec')
const EvolveSpec = z.object({ parent: z.string(), config: z.string(), data: z.string().nullable() }).openapi('EvolveSpec')

export const TrainingRecord = z
  .object({
    task: z.string().max(200).nullable().optional(),
    base: z.object({ name: z.string().max(1000), weights: z.string().max(200) }).optional(),
    data: z.object({ source: z.string().max(1000), digest: z.string().max(200), examples: z.int().min(0), cut: z.int().min(0).optional(), left_out: z.int().min(0).optional() }),
    options: z.record(z.string().max(200), z.unknown()).openapi({ description: 'All settings, with their defaults.' }),
    versions: z.record(z.string().max(100), z.string().max(200)),
    curve: z.array(z.object({ step: z.int().min(0), epoch: z.number(), loss: z.number(), learning_rate: z.number() })).max(100_000).readonly(),
    validation: z.array(z.object({ step: z.int().min(0), epoch: z.number(), loss: z.number() })).max(100_000).readonly().optional(),
    steps: z.int().min(0),
    peak_memory_bytes: z.int().min(0),
    wall_seconds: z.number().min(0),
    device_seconds: z.number().min(0).openapi({ description: 'Of all devices together.' }),
    device: z.string().max(200),
  })
  .openapi('TrainingRecord')

export const Training = z
  .object({ spec: z.union([FinetuneSpec, EvolveSpec]), datasetDigest: Digest.nullable().openapi({ description: 'Of the dataset of the registry that `spec.data` names.' }), record: TrainingRecord.nullable(), job: Job.nullable() })
  .openapi('Training', { description: 'How a job of this registry made the version.' })

export const TrainingStarted = z.object({ reference: z.string().openapi({ description: 'The version to be.' }), job: Job }).openapi('TrainingStarted')
