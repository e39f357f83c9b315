import type { App } from '../../app.ts'
import { EvaluationParams } from '../evaluations/evaluation-schema.ts'
import { registerFileOperations } from './file-operations.ts'

export function registerGetEvaluationFile(app: App): void {
  registerFileOperations(app, {
    path: '/v1/evaluations/{id}',
    params: EvaluationParams,
    name: 'EvaluationFile',
    tag: 'evaluations',
    what: 'an evaluation: what was asked and answered, a line for each question',
    subject: (c) => ({ kind: 'evaluation', id: c.req.param('id')! }),
  })
}
