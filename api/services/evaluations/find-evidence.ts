import { and, desc, eq, inArray, or } from 'drizzle-orm'
import { evaluations } from '../../../db/schema.ts'
import { comparisonKey, type EvaluationHow, type EvaluationResult, type TaskScore } from '../../../patch/evaluation.ts'
import type { RequestContext } from '../../context.ts'
import { evaluationsVisibleTo, ofTargetAlone, selectEvaluations, type EvaluationRow } from './find-visible.ts'

/** How a patch did on a target, and who says so. */
export interface EvaluationEvidence {
  kind: 'evaluation'
  /** Of the evaluation, which has what was recorded of each question. */
  id: string
  how: EvaluationHow
  measured: Pick<EvaluationResult['measured'], 'by' | 'at'>
  num_fewshot: number | null
  limit: number | null
  /** Beside each score the target's alone, where the same question was put to it. */
  scores: (TaskScore & { alone: Pick<TaskScore, 'value' | 'stderr'> | null })[]
}

/** The finished evaluations of these patch versions on a target that the caller may see in full, newest first, by patch version. */
export async function findEvaluationEvidence({ ctx, targetVersionId, patchVersionIds }: { ctx: RequestContext; targetVersionId: string; patchVersionIds: readonly string[] }): Promise<Map<string, EvaluationEvidence[]>> {
  const found = await selectEvaluations(ctx.db)
    .where(and(
      eq(evaluations.targetVersionId, targetVersionId), eq(evaluations.state, 'ready'),
      or(ofTargetAlone, inArray(evaluations.patchVersionId, [...patchVersionIds])),
      evaluationsVisibleTo(ctx.db, ctx.principal),
    ))
    .orderBy(desc(evaluations.readyAt), desc(evaluations.id))
  const rows = found.map(({ evaluation }) => evaluation)
  const alone = new Map<string, TaskScore>()
  for (const { spec, result } of rows.filter((row) => row.patchVersionId === null).reverse()) {
    for (const score of result!.scores) alone.set(comparisonKey(score, spec), score)
  }
  const byPatch = Map.groupBy(rows.filter((row) => row.patchVersionId !== null), (row) => row.patchVersionId!)
  return new Map([...byPatch].map(([patchVersionId, of]) => [patchVersionId, of.map((row) => toEvidence(row, alone))]))
}

function toEvidence({ id, spec, result }: EvaluationRow, alone: ReadonlyMap<string, TaskScore>): EvaluationEvidence {
  const { how, num_fewshot, limit } = spec
  const { by, at } = result!.measured
  const scores = result!.scores.map((score) => {
    const other = alone.get(comparisonKey(score, spec))
    return { ...score, alone: other === undefined ? null : { value: other.value, stderr: other.stderr } }
  })
  return { kind: 'evaluation', id, how, measured: { by, at }, num_fewshot, limit, scores }
}
