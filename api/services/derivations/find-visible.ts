import { and, eq, sql, type SQL } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Database } from '../../../db/database.ts'
import { derivationPatches, derivations, models, modelVersions, patches, patchVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { visibleTo } from '../authorization/visibility.ts'

type Visibility = 'public' | 'internal'
type DerivationRow = typeof derivations.$inferSelect

/** The row, and `public` where everything that it is made of is. */
export type VisibleDerivation = DerivationRow & { visibility: Visibility }

const baseVersions = alias(modelVersions, 'base_versions')
export const baseModels = alias(models, 'base_models')

interface Asked { ctx: Pick<RequestContext, 'db' | 'principal'>; id: string }

/**
 * A derivation, in whatever state. Only those see it who may see its target, every one of its patches, and every base that
 * the merge reads.
 * Throws `not_found`, with the same words for one that is not there and one that the caller may not see.
 */
export async function findVisibleDerivation({ ctx, id }: Asked): Promise<VisibleDerivation> {
  const { visibility } = await findDerivationState({ ctx, id })
  const [row] = await ctx.db.select().from(derivations).where(eq(derivations.id, id))
  return { ...row!, visibility }
}

/** The same without manifest and receipt, which are too large to read for each range of a file. */
export async function findDerivationState({ ctx, id }: Asked): Promise<Pick<DerivationRow, 'id' | 'state'> & { visibility: Visibility }> {
  const { db, principal } = ctx
  if (!/^[0-9a-f]{64}$/.test(id)) throw notFound('The merged model', id)
  const isPublic = sql<boolean>`(${models.visibility} = 'public' and ${everyPatch(db, eq(patches.visibility, 'public'))} and ${everyBase(db, eq(baseModels.visibility, 'public'))})`
  const [row] = await db
    .select({ id: derivations.id, state: derivations.state, isPublic })
    .from(derivations)
    .innerJoin(modelVersions, eq(modelVersions.id, derivations.targetVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .where(and(eq(derivations.id, id), visibleTo(principal, models), everyPatch(db, visibleTo(principal, patches)), everyBase(db, visibleTo(principal, baseModels))))
  if (row === undefined) throw notFound('The merged model', id)
  return { id: row.id, state: row.state, visibility: row.isPublic ? 'public' : 'internal' }
}

/** Of the patches of `derivations`; a condition on `patches`. True where there is no derivation. */
export function everyPatch(db: Database, condition: SQL): SQL {
  const others = db
    .select({ one: sql`1` })
    .from(derivationPatches)
    .innerJoin(patchVersions, eq(patchVersions.id, derivationPatches.patchVersionId))
    .innerJoin(patches, eq(patches.id, patchVersions.patchId))
    .where(and(eq(derivationPatches.derivationId, derivations.id), sql`not (${condition})`))
  return sql`not exists ${others}`
}

/** Of the bases that the recipe of `derivations` names as inputs; a condition on `baseModels`. */
export function everyBase(db: Database, condition: SQL): SQL {
  const others = db
    .select({ one: sql`1` })
    .from(derivationPatches)
    .innerJoin(patchVersions, eq(patchVersions.id, derivationPatches.patchVersionId))
    .innerJoin(baseVersions, eq(baseVersions.id, patchVersions.baseVersionId))
    .innerJoin(baseModels, eq(baseModels.id, baseVersions.modelId))
    .where(and(eq(derivationPatches.derivationId, derivations.id), sql`jsonb_exists(${derivations.recipe} -> 'patches' -> ${derivationPatches.position}, 'base')`, sql`not (${condition})`))
  return sql`not exists ${others}`
}
