import { eq } from 'drizzle-orm'
import { patchMarks, patchVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { describePatch, type PatchView } from './describe.ts'
import { findPatchVersion } from './find.ts'

/** A text sets the mark, null takes it back. */
export type PatchMark = { yank: string | null } | { deprecation: string | null }

/** Yanks or deprecates a published version, or takes that back. Idempotent. The version itself stays as it is. */
export async function markPatchVersion({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string; mark: PatchMark } }): Promise<PatchView> {
  const { organization, version, reference } = await findPatchVersion({ ctx, ...input })
  assertMayPublish(ctx.principal, organization)
  if (version.state !== 'published') throw new ApiError('wrong_state', `${reference} is ${version.state}; only a published version can be yanked or deprecated.`)
  const { mark } = input
  await inTransaction(ctx, async (tx) => {
    await tx.select({ id: patchVersions.id }).from(patchVersions).where(eq(patchVersions.id, version.id)).for('update')
    const [before] = await tx.select().from(patchMarks).where(eq(patchMarks.patchVersionId, version.id))
    const after =
      'yank' in mark
        ? { yankedAt: mark.yank === null ? null : (before?.yankedAt ?? ctx.clock.now()), yankReason: mark.yank }
        : { deprecation: mark.deprecation }
    await tx.insert(patchMarks).values({ patchVersionId: version.id, ...after }).onConflictDoUpdate({ target: patchMarks.patchVersionId, set: after })
    const verb = 'yank' in mark ? (mark.yank === null ? 'unyank' : 'yank') : mark.deprecation === null ? 'undeprecate' : 'deprecate'
    await recordAudit({ ctx, tx, entry: { organizationId: organization.id, action: `patch-version.${verb}`, subject: reference, before: before ?? null, after } })
  })
  return describePatch({ ctx, input })
}
