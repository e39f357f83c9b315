import { eq } from 'drizzle-orm'
import { models } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayAdminister } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { describeModel, type ModelView } from './describe.ts'
import { findModel } from './find.ts'

export interface UpdateFamily { organization: string; name: string; description?: string | undefined; visibility?: 'public' | 'internal' | undefined }

export async function updateModel({ ctx, input }: { ctx: RequestContext; input: UpdateFamily }): Promise<ModelView> {
  const { organization, model } = await findModel({ ctx, ...input })
  assertMayAdminister(ctx.principal, organization)
  const before = { description: model.description, visibility: model.visibility }
  const after = { description: input.description ?? before.description, visibility: input.visibility ?? before.visibility }
  await inTransaction(ctx, async (tx) => {
    await tx.update(models).set(after).where(eq(models.id, model.id))
    await recordAudit({ ctx, tx, entry: { organizationId: organization.id, action: 'model.update', subject: `${organization.name}/${model.name}`, before, after } })
  })
  return describeModel({ ctx, input })
}
