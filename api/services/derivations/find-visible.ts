import { and, eq, getTableColumns, sql } from 'drizzle-orm'
import { derivationPatches, derivations, models, modelVersions, patches, patchVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { visibleTo } from '../authorization/visibility.ts'

/** A row, and whether all that it is made of is public. */
export type VisibleDerivation = typeof derivations.$inferSelect & { visibility: 'public' | 'internal' }

/**
 * A derivation, in whatever state. Only those see it who may see its target and every one of its patches.
 * Throws `not_found`, with the same words for one that is not there and one that the caller may not see.
 */
export async function findVisibleDerivation({ ctx, id }: { ctx: Pick<RequestContext, 'db' | 'principal'>; id: string }): Promise<VisibleDerivation> {
  const { manifest: _manifest, receipt: _receipt, ...light } = getTableColumns(derivations)
  void light
  const partsWhere = (condition: ReturnType<typeof sql>) => sql<boolean>`not exists (
    select 1 from ${derivationPatches}
    join ${patchVersions} on ${patchVersions.id} = ${derivationPatches.patchVersionId}
    join ${patches} on ${patches.id} = ${patchVersions.patchId}
    where ${derivationPatches.derivationId} = ${derivations.id} and not (${condition}))`
  const [row] = await ctx.db
    .select({ derivation: derivations, isPublic: sql<boolean>`${models.visibility} = 'public' and ${partsWhere(sql`${patches.visibility} = 'public'`)}` })
    .from(derivations)
    .innerJoin(modelVersions, eq(modelVersions.id, derivations.targetVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .where(and(eq(derivations.id, id), visibleTo(ctx.principal, models), partsWhere(visibleTo(ctx.principal, patches))))
  if (row === undefined) throw notFound('The merged model', id)
  return { ...row.derivation, visibility: row.isPublic ? 'public' : 'internal' }
}
