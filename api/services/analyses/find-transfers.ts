import { asc, eq } from 'drizzle-orm'
import { derivationPatches, derivations } from '../../../db/schema.ts'
import type { Transfer } from '../../../patch/transfer.ts'
import type { RequestContext } from '../../context.ts'
import { findAnalysisEvidence } from './find-evidence.ts'

/**
 * What our own ports say of each patch of a merged model, which the caller may see, in its order; null where the pair is not
 * analyzed, or the caller may not see that it is.
 */
export async function findTransfers({ ctx, derivationId }: { ctx: RequestContext; derivationId: string }): Promise<(Transfer | null)[]> {
  const parts = await ctx.db
    .select({ patchVersionId: derivationPatches.patchVersionId, targetVersionId: derivations.targetVersionId })
    .from(derivationPatches)
    .innerJoin(derivations, eq(derivations.id, derivationPatches.derivationId))
    .where(eq(derivationPatches.derivationId, derivationId))
    .orderBy(asc(derivationPatches.position))
  const found = await findAnalysisEvidence({ ctx, targetVersionId: parts[0]!.targetVersionId, patchVersionIds: parts.map(({ patchVersionId }) => patchVersionId) })
  return parts.map(({ patchVersionId }) => found.get(patchVersionId)?.[0]?.transfer ?? null)
}
