import type { RequestContext } from '../../context.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { completeUpload } from '../uploads/complete.ts'
import type { UploadSubject } from '../uploads/subject.ts'
import { describeUpload, type UploadView } from '../uploads/upload-view.ts'
import { findDatasetVersion } from './find.ts'

interface Names { organization: string; name: string; version: string }

async function findSubject(ctx: RequestContext, names: Names): Promise<UploadSubject> {
  const { organization, version, reference } = await findDatasetVersion({ ctx, ...names })
  assertMayPublish(ctx.principal, organization)
  return { kind: 'dataset', versionId: version.id, reference, organization }
}

export async function describeDatasetUpload({ ctx, input }: { ctx: RequestContext; input: Names }): Promise<UploadView> {
  return describeUpload({ ctx, subject: await findSubject(ctx, input) })
}

export async function completeDatasetUpload({ ctx, input }: { ctx: RequestContext; input: Names & { digest?: string | undefined } }): Promise<UploadView> {
  return completeUpload({ ctx, subject: await findSubject(ctx, input), digest: input.digest })
}
