import { distTags } from '../../../db/schema.ts'
import { isDistTag } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError, notFound } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { readDistTags } from './describe.ts'
import { findPatch, findPatchVersion } from './find.ts'

/** Points a tag at a published version; returns all tags. */
export async function setDistTag({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; tag: string; version: string } }): Promise<Record<string, string>> {
  const { organization, patch } = await findPatch({ ctx, ...input })
  assertMayPublish(ctx.principal, organization)
  if (!isDistTag(input.tag)) throw new ApiError('invalid_name', `${JSON.stringify(input.tag)} cannot be a dist-tag: use a word that is no version or range, such as "beta".`)
  const { version, reference } = await findPatchVersion({ ctx, ...input })
  if (version.state !== 'published') throw notFound('The published version', reference)
  await inTransaction(ctx, async (tx) => {
    const before = await readDistTags(tx, patch.id)
    await tx
      .insert(distTags)
      .values({ patchId: patch.id, tag: input.tag, patchVersionId: version.id })
      .onConflictDoUpdate({ target: [distTags.patchId, distTags.tag], set: { patchVersionId: version.id } })
    await recordAudit({ ctx, tx, entry: { organizationId: organization.id, action: 'patch.tag', subject: `${organization.name}/${patch.name}`, before: { [input.tag]: before[input.tag] ?? null }, after: { [input.tag]: version.version } } })
  })
  return readDistTags(ctx.db, patch.id)
}
