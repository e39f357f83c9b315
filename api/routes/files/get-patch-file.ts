import type { App } from '../../app.ts'
import { PatchVersionParams } from '../reference-params.ts'
import { registerFileOperations } from './file-operations.ts'

export function registerGetPatchFile(app: App): void {
  registerFileOperations(app, {
    path: '/v1/patches/{org}/{name}/{version}',
    params: PatchVersionParams,
    name: 'PatchFile',
    tag: 'patches',
    what: 'a published patch version',
    subject: (c) => ({ kind: 'patch', organization: c.req.param('org')!, name: c.req.param('name')!, version: c.req.param('version')! }),
  })
}
