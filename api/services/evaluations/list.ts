import { and, desc, eq, or, sql, type SQL } from 'drizzle-orm'
import { evaluations, models, modelVersions, patches, patchVersions } from '../../../db/schema.ts'
import type { EvaluationHow } from '../../../patch/evaluation.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { findModel, findModelVersion } from '../models/find.ts'
import { decodeTimeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { findPatch, findPatchVersion } from '../patches/find.ts'
import { readReference } from '../resolutions/select-patches.ts'
import { summarizeEvaluations, type EvaluationSummaryView } from './describe.ts'
import { evaluationsVisibleTo, selectEvaluations } from './find-visible.ts'

export interface ListEvaluations extends PageInput {
  /** `org/name`, or `org/name@version`. */
  model?: string | undefined
  patch?: string | undefined
  task?: string | undefined
  how?: EvaluationHow | undefined
}

/** Evaluations that the caller may see, newest first. Throws `not_found` for a model or patch that the caller may not see. */
export async function listEvaluations({ ctx, input }: { ctx: RequestContext; input: ListEvaluations }): Promise<Page<EvaluationSummaryView>> {
  const after = decodeTimeCursor(input.cursor)
  const { task } = input
  const createdAt = sql`date_trunc('milliseconds', ${evaluations.createdAt})`
  const rows = await selectEvaluations(ctx.db)
    .where(and(
      evaluationsVisibleTo(ctx.db, ctx.principal),
      input.model === undefined ? undefined : await ofModel(ctx, input.model),
      input.patch === undefined ? undefined : await ofPatch(ctx, input.patch),
      input.how === undefined ? undefined : eq(sql`${evaluations.spec} ->> 'how'`, input.how),
      // A group of tasks is asked for by its name, and scored by those of its members.
      task === undefined ? undefined : or(sql`${evaluations.spec} -> 'tasks' @> ${JSON.stringify([task])}::jsonb`, sql`${evaluations.result} -> 'scores' @> ${JSON.stringify([{ task }])}::jsonb`),
      after === null ? undefined : sql`(${createdAt}, ${evaluations.id}) < (${after.at.toISOString()}::timestamptz, ${after.id}::uuid)`,
    ))
    .orderBy(desc(createdAt), desc(evaluations.id))
    .limit(input.limit + 1)
  const page = toPage(rows, input.limit, ({ evaluation }) => [evaluation.createdAt.toISOString(), evaluation.id], (row) => row)
  return { items: await summarizeEvaluations(ctx.db, page.items), nextCursor: page.nextCursor }
}

async function ofModel(ctx: RequestContext, text: string): Promise<SQL> {
  const { organization, name, selector } = readUnweighted(text)
  if (selector === null) return eq(models.id, (await findModel({ ctx, organization, name })).model.id)
  return eq(modelVersions.id, (await findModelVersion({ ctx, organization, name, version: selector })).version.id)
}

async function ofPatch(ctx: RequestContext, text: string): Promise<SQL> {
  const { organization, name, selector } = readUnweighted(text)
  if (selector === null) return eq(patches.id, (await findPatch({ ctx, organization, name })).patch.id)
  return eq(patchVersions.id, (await findPatchVersion({ ctx, organization, name, version: selector })).version.id)
}

function readUnweighted(text: string) {
  const reference = readReference(text)
  if (reference.weight !== 1) throw new ApiError('invalid_reference', `${text} has a weight, which only a patch of a merge may have.`)
  return reference
}
