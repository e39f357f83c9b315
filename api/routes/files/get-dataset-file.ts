import type { App } from '../../app.ts'
import { ModelVersionParams } from '../reference-params.ts'
import { registerFileOperations } from './file-operations.ts'

export function registerGetDatasetFile(app: App): void {
  registerFileOperations(app, {
    path: '/v1/datasets/{org}/{name}/{version}',
    params: ModelVersionParams,
    name: 'DatasetFile',
    tag: 'datasets',
    what: 'a published dataset version',
    subject: (c) => ({ kind: 'dataset', organization: c.req.param('org')!, name: c.req.param('name')!, version: c.req.param('version')! }),
  })
}
