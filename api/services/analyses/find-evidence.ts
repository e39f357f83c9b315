import { and, eq, inArray, sql } from 'drizzle-orm'
import { analyses, models, modelVersions, patchVersions } from '../../../db/schema.ts'
import type { Analysis } from '../../../patch/analysis.ts'
import { transferOf, type Transfer } from '../../../patch/transfer.ts'
import { CALIBRATION } from '../../../patch/transfer-calibration.ts'
import type { RequestContext } from '../../context.ts'
import { visibleTo } from '../authorization/visibility.ts'

/** What was measured of the weights of a patch on a target, and who says so. */
export interface AnalysisEvidence {
  kind: 'analysis'
  /** Of the analysis, which has the figures of every layer and tensor. */
  id: string
  measured: Pick<Analysis['measured'], 'by' | 'at'>
  parts: Analysis['parts']
  /** What became of our own ports that were like it. */
  transfer: Transfer
}

/**
 * The finished analyses of these patch versions on a target, by patch version. The caller may see patches and target;
 * those whose base it may not see are left out.
 */
export async function findAnalysisEvidence({ ctx, targetVersionId, patchVersionIds }: { ctx: RequestContext; targetVersionId: string; patchVersionIds: readonly string[] }): Promise<Map<string, AnalysisEvidence[]>> {
  const rows = await ctx.db
    .select({
      patchVersionId: analyses.patchVersionId,
      id: analyses.id,
      // Not the whole result, which has an entry for each tensor.
      by: sql<string>`${analyses.result} #>> '{measured,by}'`,
      at: sql<string>`${analyses.result} #>> '{measured,at}'`,
      parts: sql<string>`${analyses.result} ->> 'parts'`,
      readDrift: sql<string | null>`${analyses.result} #>> '{whole,readDrift}'`,
    })
    .from(analyses)
    .innerJoin(patchVersions, eq(patchVersions.id, analyses.patchVersionId))
    .innerJoin(modelVersions, eq(modelVersions.id, patchVersions.baseVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .where(and(eq(analyses.targetVersionId, targetVersionId), inArray(analyses.patchVersionId, [...patchVersionIds]), eq(analyses.state, 'ready'), visibleTo(ctx.principal, models)))
  const evidence = rows.map(({ patchVersionId, id, by, at, parts, readDrift }) => {
    const found: AnalysisEvidence = { kind: 'analysis', id, measured: { by, at }, parts: JSON.parse(parts) as Analysis['parts'], transfer: transferOf(CALIBRATION, readDrift === null ? null : Number(readDrift)) }
    return [patchVersionId, found] as const
  })
  return new Map([...Map.groupBy(evidence, ([patchVersionId]) => patchVersionId)].map(([patchVersionId, found]) => [patchVersionId, found.map(([, one]) => one)]))
}
