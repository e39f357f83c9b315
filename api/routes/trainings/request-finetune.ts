import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { requestFinetune } from '../../services/trainings/request-finetune.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { tokenRequired } from '../security.ts'
import { Description, Visibility } from '../uploads/upload-schema.ts'
import { DataName, FinetuneOptions, Task, TrainingStarted, YamlText } from './training-schema.ts'

const FinetuneRequest = z
  .strictObject({
    patch: z.string().openapi({ description: 'The patch version to be.', example: 'hospital/triage@1.0.0' }),
    base: z.string().openapi({ example: 'lab/mistral@1.0' }),
    task: Task.nullable().default(null).openapi({ example: 'boolq' }),
    taskFile: YamlText.nullable().default(null).openapi({ description: 'YAML of a task of your own, in lm-eval’s form; it may name no code and no path.' }),
    data: DataName.nullable().default(null),
    options: FinetuneOptions.prefault({}),
    targetRange: z.string().max(200).optional(),
    tag: z.string().optional(),
    description: Description.optional(),
    visibility: Visibility.optional(),
  })
  .openapi('FinetuneRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/finetunes',
  operationId: 'requestFinetune',
  tags: ['trainings'],
  summary: 'Fine-tune a patch on a base, and publish it',
  description: 'A job trains it; the version is reserved meanwhile, verified like an upload, and published. A job that fails leaves the version rejected with the reason; it may be asked for again.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(FinetuneRequest) },
  responses: { 202: jsonContent(TrainingStarted, 'A job trains it; `Location` names the job.'), ...errorResponses(403, 404, 409) },
})

export function registerRequestFinetune(app: App): void {
  app.openapi(route, async (c) => {
    const started = await requestFinetune({ ctx: c.var.ctx, input: c.req.valid('json') })
    c.header('Location', `/v1/jobs/${started.job.id}`)
    return c.json(started, 202)
  })
}
