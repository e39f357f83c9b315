import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { authenticated } from '../../middleware/authentication.ts'
import { requestEvolution } from '../../services/trainings/request-evolution.ts'
import { errorResponses, jsonBody, jsonContent } from '../error-responses.ts'
import { tokenRequired } from '../security.ts'
import { Description, Visibility } from '../uploads/upload-schema.ts'
import { DataName, TrainingStarted, YamlText } from './training-schema.ts'

const EvolutionRequest = z
  .strictObject({
    model: z.string().openapi({ description: 'The model version to be.', example: 'lab/mistral@2.0' }),
    parent: z.string().openapi({ example: 'lab/mistral@1.0' }),
    parentKind: z.enum(['continued-pretraining', 'instruction-tuning']).default('continued-pretraining'),
    config: YamlText.openapi({ description: 'Of the training, in Axolotl’s form.' }),
    data: DataName.nullable().default(null),
    description: Description.optional(),
    visibility: Visibility.optional(),
  })
  .openapi('EvolutionRequest')

const route = createRoute({
  method: 'post',
  path: '/v1/evolutions',
  operationId: 'requestEvolution',
  tags: ['trainings'],
  summary: 'Train a model version further, and publish the result as its child',
  description: 'A job trains it; the version is reserved meanwhile, verified like an upload, and published with its parent. A job that fails leaves the version rejected with the reason; it may be asked for again.',
  security: tokenRequired,
  middleware: [authenticated] as const,
  request: { body: jsonBody(EvolutionRequest) },
  responses: { 202: jsonContent(TrainingStarted, 'A job trains it; `Location` names the job.'), ...errorResponses(403, 404, 409) },
})

export function registerRequestEvolution(app: App): void {
  app.openapi(route, async (c) => {
    const started = await requestEvolution({ ctx: c.var.ctx, input: c.req.valid('json') })
    c.header('Location', `/v1/jobs/${started.job.id}`)
    return c.json(started, 202)
  })
}
