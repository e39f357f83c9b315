import { and, desc, eq, inArray, isNotNull, type SQL } from 'drizzle-orm'
import { evaluations, patches } from '../../../db/schema.ts'
import { compareEvaluations, type Comparison } from '../../../patch/comparison.ts'
import type { RequestContext } from '../../context.ts'
import { findModelVersion } from '../models/find.ts'
import { findPatch } from '../patches/find.ts'
import { summarizeEvaluations } from './describe.ts'
import { evaluationsVisibleTo, ofTargetAlone, selectEvaluations, type VisibleEvaluation } from './find-visible.ts'

/** Enough for every page that people look at. */
const LIMIT = 500

/** How the versions of a patch did on the targets that they were ported to, from what the caller may see. */
export async function comparePatch({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string } }): Promise<Comparison[]> {
  const { patch } = await findPatch({ ctx, ...input })
  return compare(ctx, eq(patches.id, patch.id))
}

/** How patches that were ported to a model version did on it, from what the caller may see. */
export async function compareOnModelVersion({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<Comparison[]> {
  const { version } = await findModelVersion({ ctx, ...input })
  return compare(ctx, eq(evaluations.targetVersionId, version.id))
}

async function compare(ctx: RequestContext, which: SQL): Promise<Comparison[]> {
  const patched = await select(ctx, and(which, isNotNull(evaluations.patchVersionId))!)
  const models = [...new Set(patched.flatMap(({ evaluation, baseVersionId }) => [evaluation.targetVersionId, baseVersionId!]))]
  const alone = models.length === 0 ? [] : await select(ctx, and(ofTargetAlone, inArray(evaluations.targetVersionId, models))!)
  const summaries = await summarizeEvaluations(ctx.db, [...patched, ...alone])
  return compareEvaluations(summaries.flatMap(({ result, ...rest }) => (result === null ? [] : [{ ...rest, result }])))
}

function select(ctx: RequestContext, which: SQL): Promise<VisibleEvaluation[]> {
  return selectEvaluations(ctx.db).where(and(which, eq(evaluations.state, 'ready'), evaluationsVisibleTo(ctx.db, ctx.principal))).orderBy(desc(evaluations.readyAt)).limit(LIMIT)
}
