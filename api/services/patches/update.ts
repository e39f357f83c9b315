import { eq } from 'drizzle-orm'
import { patches } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayAdminister } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { describePatch, type PatchView } from './describe.ts'
import type { UpdateFamily } from '../models/update.ts'
import { findPatch } from './find.ts'

export async function updatePatch({ ctx, input }: { ctx: RequestContext; input: UpdateFamily }): Promise<PatchView> {
  const { organization, patch } = await findPatch({ ctx, ...input })
  assertMayAdminister(ctx.principal, organization)
  const before = { description: patch.description, visibility: patch.visibility }
  const after = { description: input.description ?? before.description, visibility: input.visibility ?? before.visibility }
  await inTransaction(ctx, async (tx) => {
    await tx.update(patches).set(after).where(eq(patches.id, patch.id))
    await recordAudit({ ctx, tx, entry: { organizationId: organization.id, action: 'patch.update', subject: `${organization.name}/${patch.name}`, before, after } })
  })
  return describePatch({ ctx, input })
}
