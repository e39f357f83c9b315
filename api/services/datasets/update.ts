import { eq } from 'drizzle-orm'
import { datasets } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayAdminister } from '../authorization/authorize.ts'
import type { UpdateFamily } from '../models/update.ts'
import { inTransaction } from '../transaction.ts'
import { describeDataset, type DatasetView } from './describe.ts'
import { findDataset } from './find.ts'

export async function updateDataset({ ctx, input }: { ctx: RequestContext; input: UpdateFamily }): Promise<DatasetView> {
  const { organization, dataset } = await findDataset({ ctx, ...input })
  assertMayAdminister(ctx.principal, organization)
  const before = { description: dataset.description, visibility: dataset.visibility }
  const after = { description: input.description ?? before.description, visibility: input.visibility ?? before.visibility }
  await inTransaction(ctx, async (tx) => {
    await tx.update(datasets).set(after).where(eq(datasets.id, dataset.id))
    await recordAudit({ ctx, tx, entry: { organizationId: organization.id, action: 'dataset.update', subject: `${organization.name}/${dataset.name}`, before, after } })
  })
  return describeDataset({ ctx, input })
}
