import type { App } from '../../app.ts'
import { ModelVersionParams } from '../reference-params.ts'
import { registerFileOperations } from './file-operations.ts'

export function registerGetModelFile(app: App): void {
  registerFileOperations(app, {
    path: '/v1/models/{org}/{name}/{version}',
    params: ModelVersionParams,
    name: 'ModelFile',
    tag: 'models',
    what: 'a published model version',
    subject: (c) => ({ kind: 'model', organization: c.req.param('org')!, name: c.req.param('name')!, version: c.req.param('version')! }),
  })
}
