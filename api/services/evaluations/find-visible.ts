import { and, eq, isNull, or, sql, type SQL } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database } from '../../../db/database.ts'
import { derivations, evaluations, models, modelVersions, patches, patchVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import type { Principal } from '../authorization/principal.ts'
import { ofOwnOrganization, visibleTo } from '../authorization/visibility.ts'
import { baseModels, everyBase, everyPatch } from '../derivations/find-visible.ts'

const bases = alias(modelVersions, 'evaluated_base')

export type EvaluationRow = typeof evaluations.$inferSelect

export interface VisibleEvaluation {
  readonly evaluation: EvaluationRow
  readonly targetDigest: string
  /** Of its one patch; null where it has none, several, or one with a weight. */
  readonly patchDigest: string | null
  /** Of what the patch was trained on. */
  readonly baseVersionId: string | null
  readonly baseDigest: string | null
  /** Whether everybody may see everything that it is about. */
  readonly isPublic: boolean
}

/** Evaluations with what they are about. Always with the condition of `evaluationsVisibleTo`, or for no caller at all. */
export function selectEvaluations(db: Database) {
  return db
    .select({ evaluation: evaluations, targetDigest: sql<string>`${modelVersions.digest}`, patchDigest: patchVersions.digest, baseVersionId: patchVersions.baseVersionId, baseDigest: bases.digest, isPublic: sql<boolean>`${whollyPublic(db)}` })
    .from(evaluations)
    .innerJoin(modelVersions, eq(modelVersions.id, evaluations.targetVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .leftJoin(patchVersions, eq(patchVersions.id, evaluations.patchVersionId))
    .leftJoin(patches, eq(patches.id, patchVersions.patchId))
    .leftJoin(bases, eq(bases.id, patchVersions.baseVersionId))
    .leftJoin(derivations, eq(derivations.id, evaluations.derivationId))
    .$dynamic()
}

/** Evaluations of a target without any patch. */
export const ofTargetAlone = and(isNull(evaluations.patchVersionId), isNull(evaluations.derivationId))!

/** Those whose target, patches, data, and every base that their merge reads the caller may see: scores tell something of all of them. */
export function evaluationsVisibleTo(db: Database, principal: Principal): SQL {
  return and(
    visibleTo(principal, models),
    or(isNull(evaluations.patchVersionId), visibleTo(principal, patches)),
    everyPatch(db, visibleTo(principal, patches)),
    everyBase(db, visibleTo(principal, baseModels)),
    or(isNull(evaluations.dataOrganizationId), ofOwnOrganization(principal, evaluations.dataOrganizationId)),
  )!
}

function whollyPublic(db: Database): SQL {
  return and(
    eq(models.visibility, 'public'),
    or(isNull(evaluations.patchVersionId), eq(patches.visibility, 'public')),
    everyPatch(db, eq(patches.visibility, 'public')),
    everyBase(db, eq(baseModels.visibility, 'public')),
    isNull(evaluations.dataOrganizationId),
  )!
}

/** An evaluation, in whatever state. Throws `not_found`, with the same words for one that is not there and one that the caller may not see. */
export async function findVisibleEvaluation({ ctx, id }: { ctx: Pick<RequestContext, 'db' | 'principal'>; id: string }): Promise<VisibleEvaluation> {
  const [row] = await selectEvaluations(ctx.db).where(and(eq(evaluations.id, id), evaluationsVisibleTo(ctx.db, ctx.principal)))
  if (row === undefined) throw notFound('The evaluation', id)
  return row
}
