import { and, eq } from 'drizzle-orm'
import { distTags } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError, notFound } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { readDistTags } from './describe.ts'
import { findPatch } from './find.ts'

/** Returns the tags that are left. `latest` stays: it is what is meant where nothing is said. */
export async function removeDistTag({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; tag: string } }): Promise<Record<string, string>> {
  const { organization, patch } = await findPatch({ ctx, ...input })
  assertMayPublish(ctx.principal, organization)
  if (input.tag === 'latest') throw new ApiError('wrong_state', 'The tag latest cannot be removed. Point it at another version instead.')
  await inTransaction(ctx, async (tx) => {
    const before = await readDistTags(tx, patch.id)
    if (!Object.hasOwn(before, input.tag)) throw notFound('The dist-tag', `${input.tag} of ${organization.name}/${patch.name}`)
    await tx.delete(distTags).where(and(eq(distTags.patchId, patch.id), eq(distTags.tag, input.tag)))
    await recordAudit({ ctx, tx, entry: { organizationId: organization.id, action: 'patch.untag', subject: `${organization.name}/${patch.name}`, before: { [input.tag]: before[input.tag] }, after: { [input.tag]: null } } })
  })
  return readDistTags(ctx.db, patch.id)
}
